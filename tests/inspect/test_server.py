"""Who may read the pages of `perceptune inspect`, and the command itself."""

from pathlib import Path

import pytest
from perceptune.__main__ import main
from perceptune.commands.inspect import server
from perceptune.commands.inspect.library import Library
from perceptune.contracts.errors import UserError
from polars.exceptions import ComputeError
from starlette.testclient import TestClient

from tests.inspect.pages import PAIRS, QUESTION, TOKEN


@pytest.mark.parametrize(
    "path", ["/", "/answers", "/wrong/answers", f"/{TOKEN}", f"/{TOKEN}x/", "/%ff/", f"/{TOKEN[:-1]}/"]
)
def test_without_the_token_there_is_nothing(library: Library, path: str) -> None:
    client = TestClient(server.application(library, TOKEN), "http://127.0.0.1")
    response = client.get(path)
    assert response.status_code == 403
    assert "no valid token" in response.text and TOKEN not in response.text


def test_the_browser_is_led_to_the_page_once(library: Library) -> None:
    """Its address can be read in the list of processes."""
    client = TestClient(server.application(library, TOKEN, "once", "rounds?experiment=grpo"), "http://127.0.0.1")
    first = client.get("/once/", follow_redirects=False)
    assert (first.status_code, first.headers["location"]) == (303, f"/{TOKEN}/rounds?experiment=grpo")
    assert "referrer-policy" in first.headers
    assert client.get("/once/").status_code == 403
    assert client.get("//").status_code == 403  # nothing is no address


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:80", 200), ("localhost:1234", 200), ("evil.example", 400), ("127.0.0.1.evil.example", 400), ("", 400)],
)
def test_only_names_of_this_machine_are_answered(client: TestClient, host: str, status: int) -> None:
    assert client.get("", headers={"host": host}).status_code == status


def test_responses_forbid_scripts_copies_and_referrers(client: TestClient) -> None:
    for address in ("", "answers", "style.css", "script.js", "image?dataset=shapes&id=e0", "nowhere", "../wrong/"):
        headers = client.get(address).headers
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy


def test_nothing_can_be_changed(client: TestClient) -> None:
    for method in ("POST", "PUT", "DELETE"):
        assert client.request(method, "answers").status_code == 405


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("image?dataset=shapes&id=../../data/0.png", 404),
        ("image?dataset=../examples/shapes&id=e0", 400),
        ("image?dataset=shapes&id=bad", 404),
        ("image", 400),
        (f"picture?table={PAIRS}&id=g0&name=/etc/passwd", 404),
        ("picture?table=../../x&id=g0&name=noise", 400),
        ("..%2f..%2fdata%2f0.png", 404),
        ("style.css%2f..%2fbase.html.jinja", 404),
        ("question?table=x&request=y", 400),
        (f"question?table={QUESTION['table']}&request=y", 400),
        ("groups", 400),
        (f"group?table={PAIRS}&id=absent", 400),
        ("rounds?experiment=perpo", 400),
        ("example?dataset=shapes&id=bad", 400),
        ("compare?a=tiny&b=absent", 400),
        ("compare?a=tiny&b=perpo&right=nan", 400),
    ],
)
def test_what_is_not_there_is_said(client: TestClient, address: str, status: int) -> None:
    assert client.get(address).status_code == status


def test_damaged_and_changed_files_are_said(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise error

    for error in (ComputeError("a broken page"), OSError("a broken disk"), ValueError("the image has changed")):
        monkeypatch.setattr(Library, "select", broken)
        response = client.get("answers")
        assert response.status_code == 400
        assert str(error) in response.text


@pytest.mark.parametrize("folder", [".", "results"])
def test_a_run_or_its_results_can_be_named(run_folder: Path, folder: str) -> None:
    assert server.located(run_folder / folder) == (run_folder, Path("results"))


def test_a_folder_without_results_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path)]) == 1
    assert main(["inspect", str(tmp_path / "absent")]) == 1
    assert [line[:9] for line in capsys.readouterr().err.splitlines()] == ["error: `/", "error: fo"]


def test_a_port_in_use_is_one_message() -> None:
    taken = server.listening(0)
    taken.listen()
    try:
        with pytest.raises(UserError, match="--port"):
            server.listening(taken.getsockname()[1])
    finally:
        taken.close()
