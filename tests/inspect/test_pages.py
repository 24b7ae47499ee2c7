"""What the pages of `perceptune inspect` show."""

import html
import io
import re
import shutil
from collections import Counter
from pathlib import Path
from urllib.parse import urlencode

import pytest
from perceptune.commands.inspect import library as library_module
from perceptune.commands.inspect.tokens import tokens_of
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_lineage, read_table, write_table
from perceptune.contracts.tables.preferences import PREFERENCES
from PIL import Image
from starlette.testclient import TestClient

from tests.inspect.pages import PAIRS, QUESTION, Page, imported, page, trained_on
from tests.results_folder import HOSTILE, QUESTIONS, RECIPES, REWARDED, ROLES

PAGES = {
    "start": "",
    "answers": "answers",
    "filtered answers": "answers?policy=perpo&condition=sampled&sort=-reward&reward_min=0.2&text=says",
    "no answers": "answers?text=nowhere",
    "question": f"question?{urlencode(QUESTION)}",
    "hostile question": f"question?{urlencode({**QUESTION, 'request': 'shapes-test/e0/original/greedy'})}",
    "two policies": f"question?{urlencode({**QUESTION, 'against': 'tiny/benchmarks/overlap'})}",
    "empty comparison": "compare",
    "comparison": "compare?a=tiny&b=perpo&plan=benchmarks&scored=overlap",
    "pairs": f"groups?table={PAIRS}&sort=-margin",
    "pair": f"group?table={PAIRS}&id=g0",
    "rollout group": "group?table=tiny/shapes/g2/overlap/all&id=shapes/e0/original/round-1",
    "rounds": "rounds?experiment=grpo",
    "examples": "examples?dataset=shapes",
    "example": "example?dataset=shapes&id=e0",
    "error": "answers?reward_min=x",
}


@pytest.mark.parametrize("name", PAGES)
def test_no_page_interprets_what_a_model_or_a_user_wrote(client: TestClient, name: str) -> None:
    found = page(client, PAGES[name], 400 if name == "error" else 200)
    scripts = [attributes for tag, attributes in found.elements if tag == "script"]
    assert scripts == [{"src": "script.js", "defer": None}]
    allowed = "html head meta title link script body a nav div main footer p b kbd code h1 h2 small section table caption thead"
    allowed += " tbody tr th td ul ol li form label select option input fieldset legend button details summary figure figcaption"
    allowed += " svg g image rect text line polyline circle polygon path span i img pre dl dt dd"
    assert {tag for tag, _ in found.elements} <= set(allowed.split())
    for tag, attributes in found.elements:
        assert not any(key.startswith("on") or key == "style" for key in attributes), (tag, attributes)
        if tag == "img":
            assert str(attributes["src"]).startswith("image?") and attributes["alt"]
    for link in found.links():
        assert re.match(r"(\./|#|\?|[a-z]+\?|[a-z]+$|style\.css$|script\.js$|icon\.svg$)", link), link
    assert "49" not in found.text or "{{ 7 * 7 }}" in found.text


def test_hostile_text_is_shown_as_it_is(client: TestClient) -> None:
    shown = HOSTILE.replace("\u202e", "\\u202e")
    for name in ("hostile question", "answers", "pair", "example", "examples", "comparison"):
        assert shown in page(client, PAGES[name]).text, name


def test_all_links_lead_somewhere(client: TestClient) -> None:
    """At most four addresses of each kind of page are followed."""
    seen, waiting, followed = set(), [""], Counter[str]()
    while waiting:
        address = waiting.pop(0)
        here = address.partition("?")[0]
        followed[here] += 1
        if followed[here] > 4:
            continue
        response = client.get(address)
        assert response.status_code == 200, (address, response.text[:300])
        if not response.headers["content-type"].startswith("text/html"):
            continue
        for link in Page(response.text).links("href", "src"):
            target = f"{here}{link}" if link.startswith("?") else link.removeprefix("./").partition("#")[0]
            if target not in seen:
                seen.add(target)
                waiting.append(target)
    assert {*followed} >= {
        "answers", "question", "compare", "groups", "group", "rounds", "examples", "example", "image", "picture", "export"
    }  # fmt: skip


def test_images_are_sent_upright_and_small(client: TestClient) -> None:
    for size, side in (("", 112), ("&size=small", 96)):
        response = client.get(f"image?dataset=shapes&id=e1{size}")
        assert response.headers["content-type"] == "image/png"
        assert Image.open(io.BytesIO(response.content)).size == (side, side)


def test_a_changed_image_is_not_shown(client: TestClient, run_folder: Path) -> None:
    file = run_folder / "data/5.png"
    before = file.read_bytes()
    Image.new("RGB", (112, 112)).save(file)
    library_module._illustrated.cache_clear()  # it has the file in memory
    try:
        assert client.get("image?dataset=shapes&id=e5").status_code == 404
        assert "the image has changed since the import" in page(client, "example?dataset=shapes&id=e5").text
    finally:
        file.write_bytes(before)


def test_the_start_page_lists_what_there_is(client: TestClient) -> None:
    found = page(client, "")
    assert "perpo 24 tiny" in found.text  # compared with its base
    assert "grpo@2 6 grpo@1 , tiny" in found.text
    assert f"{PAIRS} pairs {QUESTIONS}" in found.text
    assert "tiny/shapes/g2/overlap/all rollout groups 2" in found.text
    assert "grpo : 2 rounds" in found.text


def test_tables_that_appear_later_are_found(client: TestClient, run_folder: Path) -> None:
    copy = run_folder / "results/rewards/later/benchmarks/overlap.parquet"
    copy.parent.mkdir(parents=True)
    shutil.copy(run_folder / "results/rewards/tiny/benchmarks/overlap.parquet", copy)
    (run_folder / "results/rewards/later/benchmarks/broken.parquet").write_bytes(b"PAR1")
    try:
        text = page(client, "").text
        assert "later 24" in text
        assert "Unreadable tables" in text and "broken.parquet" in text
    finally:
        shutil.rmtree(run_folder / "results/rewards/later")


def test_a_question_shows_all_answers_with_rewards_boxes_and_tokens(client: TestClient) -> None:
    found = page(client, PAGES["two policies"])
    for policy in ("perpo", "tiny"):
        rewards = sorted(REWARDED[policy]["sampled"], key=lambda one: -(one or 0))
        assert f"{policy} · 3 answers, best first" in found.text
        for rank, reward in enumerate(rewards, 1):
            assert f"{rank} reward {reward:.3g} log-prob −7.55, −2.52 per token" in found.text
    assert "3 tokens with log-probs 5 -0.050 6 -1.500 2 -6.000" in found.text
    titles = [
        i for i, (tag, attributes) in enumerate(found.elements) if tag == "rect" and "halo" in str(attributes["class"])
    ]
    assert len(titles) == 1 + 3 + 2  # the truth, and answers with a box: a reward of 0 has none
    assert "ground truth: " in found.text and "perpo, answer 1: 11, 20, 62, 80" in found.text
    assert "user: <image>locate it." in found.text
    assert found.text.count("without its reasoning: only [11.0, 20.0, 62.0, 80.0]") == 2


def test_a_question_leads_to_its_neighbours_in_the_list(client: TestClient) -> None:
    listed = page(client, "answers?policy=tiny&condition=greedy&sort=-reward")
    links = [link for link in listed.links() if link.startswith("question?")]
    assert len(links) == QUESTIONS
    middle = page(client, links[2])
    neighbours = {str(a["rel"]): a["href"] for tag, a in middle.elements if tag == "a" and "rel" in a}
    assert (neighbours["prev"], neighbours["next"]) == (links[1], links[3])
    assert neighbours["up"] == "answers?policy=tiny&condition=greedy&sort=-reward"
    assert "prev" not in {a.get("rel") for _, a in page(client, links[0]).elements}


def test_a_bar_of_a_histogram_is_a_filter(client: TestClient) -> None:
    found = page(client, "answers?policy=perpo&condition=greedy")
    bars = [a for tag, a in found.elements if tag == "a" and "reward_min=0.7&" in html.unescape(str(a.get("href")))]
    assert [bar["aria-label"] for bar in bars] == ["0.7 to 0.75: 1"]
    chosen = page(client, "answers" + str(bars[0]["href"]))
    assert "1 answer " in chosen.text
    assert "chosen" in [a.get("class") for tag, a in chosen.elements if tag == "a"]


def test_a_comparison_counts_and_lists_the_changes(client: TestClient) -> None:
    found = page(client, PAGES["comparison"])
    assert "5 all 2 fixed 1 broken 1 both right (unchanged) 1 both wrong (unchanged)" in found.text
    assert "Left out: 1 question without a reward from both" in found.text
    fixed = page(client, PAGES["comparison"] + "&change=fixed")
    assert "shapes-test/e0/original/greedy fixed" in fixed.text
    assert "e3/original" not in fixed.text


@pytest.mark.parametrize("name", ["answers", "comparison"])
def test_lists_name_the_question_and_its_id(client: TestClient, name: str) -> None:
    stored = read_table(Path("results/examples/shapes.parquet"), EXAMPLES).to_pylist()
    asked = {row["example_id"]: row["question"] for row in stored if row["reason"] is None}
    response = client.get(PAGES[name])
    cells = re.findall(r'<td role="cell" class="about">(.*?)</td>', response.text, re.DOTALL)
    found = [Page(cell).text for cell in cells]
    assert len(found) >= 5
    assert all(any(asked[one][:20] in text and one in text for one in asked) for text in found), found


def test_pairs_show_everything_they_were_made_from(client: TestClient) -> None:
    found = page(client, PAGES["pair"])
    pictures = [str(a["href"]) for tag, a in found.elements if tag == "image"]
    assert [link.rpartition("=")[2] for link in pictures] == ["original", "attention", *RECIPES]
    seen = {link: client.get(link).content for link in pictures}
    assert len({*seen.values()}) == len(RECIPES) + 2
    for words in (
        "original image",
        "attention, maximum 0.500 per cell; focus ratio 3.25",
        "crop, share",
        "crop erased",
        "noise, r.m.s.",
    ):
        assert words in found.text
    assert "ground truth crop inverse crop" in found.text
    assert "focus pair · kept · margin 0 · IPS 0.5" in found.text
    assert found.text.count("log-prob −1.25, −0.625 per token") == len(ROLES)


def test_a_pair_without_one_of_its_answers_shows_none(client: TestClient, tmp_path: Path) -> None:
    """Such a pair has no place in the responses of its group, which may have none at all."""
    whole = Path(f"results/preferences/{PAIRS}.parquet")
    table = whole.with_name("lost.parquet")
    groups = read_table(whole, PREFERENCES).to_pylist()[1:3]
    for left, group in zip((3, 0), groups, strict=True):
        del group["responses"][left:]
        for pair in group["pairs"]:
            for role in ("chosen", "rejected"):
                pair[role] = pair[role] if pair[role] < left else -1
            pair |= {"kept": False, "reason": "no answer: too long"}
        group |= {"kept": False}
    write_table(table, PREFERENCES, groups, read_lineage(whole))
    try:
        assert "tiny/shapes/made/lost" in page(client, "").text
        some, none = (page(client, f"group?table=tiny/shapes/made/lost&id={g['group_id']}").text for g in groups)
        assert some.count("robust_chosen 1") == 1
        assert some.count("no response") == 1
        assert none.count("no response") == 4
        assert exported(client, "of=groups&table=tiny/shapes/made/lost", tmp_path).read_text() == ""
    finally:
        table.unlink()


def test_a_group_leads_to_all_answers_to_its_question(client: TestClient) -> None:
    found = page(client, PAGES["rollout group"])
    (link,) = [link for link in found.links() if link.startswith("question?")]
    assert "2 answers, best first" in page(client, link).text


def test_rounds_show_rollouts_groups_and_benchmarks(client: TestClient) -> None:
    text = page(client, PAGES["rounds"]).text
    assert "1 grpo@1 0.5 1 of 2 0.25 rollouts" in text
    assert "2 grpo@2 1 1 of 2 0.5 rollouts , compared with grpo@1" in text


def test_quarantined_examples_are_listed_with_their_reason(client: TestClient) -> None:
    found = page(client, "examples?dataset=shapes&reason=(any)")
    assert "1 example " in found.text
    assert "quarantined: " in found.text and "the file does not exist" in found.text


def exported(client: TestClient, query: str, folder: Path) -> Path:
    response = client.get(f"export?{query}")
    assert response.status_code == 200, response.text
    assert "attachment" in response.headers["content-disposition"]
    (folder / "exported.jsonl").write_text(response.text)
    return folder / "exported.jsonl"


def test_exported_examples_are_those_of_the_table(client: TestClient, tmp_path: Path) -> None:
    stored = read_table(Path("results/examples/shapes.parquet"), EXAMPLES).to_pylist()
    columns = ("question", "target", "box", "image_sha256", "task", "split")
    before = {row["example_id"]: [row[name] for name in columns] for row in stored if row["reason"] is None}
    for query in ("policy=tiny&condition=sampled&reward_min=0.1", "of=examples&dataset=shapes"):
        again = imported(exported(client, query, tmp_path))
        assert {row["example_id"]: [row[name] for name in columns] for row in again} == before


def test_exported_selections_can_be_trained_on(client: TestClient, tmp_path: Path) -> None:
    def rewards(query: str) -> dict[str, list[float]]:
        return trained_on(exported(client, query, tmp_path))

    compared = "of=questions&a=tiny&b=perpo&plan=benchmarks&scored=overlap&change="
    assert rewards(compared + "broken") == {"e1": [0.9, 0.1]}
    assert rewards(compared + "fixed") == {"e4": [0.5, 0.4]}  # both wrote the same about e0
    assert rewards(f"of=groups&table={PAIRS}&kept=yes") == {
        f"g{i}/{kind}": [1.0, 0.0] for i in (2, 4) for kind in ("focus", "robust")
    }  # the answers to g0 have one text
    assert rewards("of=groups&table=tiny/shapes/g2/overlap/all") == {}  # they have one text each


def test_tokens_need_log_probs_of_all_tokens() -> None:
    assert tokens_of(None, {}) is None
    assert tokens_of({"token_ids": [1], "logprobs": None}, {}) is None
    assert tokens_of({"token_ids": [1, 2], "logprobs": [-1.0]}, {}) is None
    model = {"path": str(Path(__file__).parents[2] / "resources/tiny-llava/model")}
    found = tokens_of({"token_ids": [393, 2], "logprobs": [-0.0, -3.0]}, model)
    assert found is not None
    assert [(token.text, token.shade) for token in found.tokens] == [(" [", 0), ("</s>", 3)]
