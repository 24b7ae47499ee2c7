"""The workflow in another Snakefile: as a module, from a hosting provider, and through snakedeploy."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import ROOT as PACKAGE
from perceptune.planning import origin, policies
from perceptune.planning.origin import check_paths, use_package_of, where_bundled
from perceptune.planning.rules import exports

ROOT = Path(__file__).parents[2]
DEMO: dict[str, Any] = yaml.safe_load((ROOT / "config/config.yaml").read_text())
URL = "https://github.com/somebody/perceptune"

DOCUMENTED = (ROOT / "docs/module.md").read_text().partition("```python\n")[2].partition("```")[0]
"""The Snakefile in the documentation."""


def write_snakefile(folder: Path, source: str) -> None:
    """Writes the documented Snakefile with another place of the workflow."""
    place = '"/path/to/perceptune/workflow/Snakefile"'
    assert place in DOCUMENTED
    (folder / "Snakefile").write_text(DOCUMENTED.replace(place, source))


def snakemake(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """(exit status, what both streams say) of a run in a folder."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["snakemake", "--quiet", "rules", "host", "--cores", "1", *arguments],
        cwd=folder,
        env={**os.environ, "PATH": path, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.rstrip()


def job_counts(output: str) -> dict[str, int]:
    """Name and number of all jobs, as Snakemake prints them."""
    table = output.partition("Job stats:\n")[2].partition("\n\n")[0].splitlines()[2:]
    return {name: int(count) for name, count in (line.split() for line in table)}


def write_config(folder: Path, **changed: Any) -> None:
    """Writes the demo's config into a folder without its model."""
    path = str(ROOT / DEMO["models"]["tiny"]["path"])
    models = {"tiny": {**DEMO["models"]["tiny"], "path": path}}
    (folder / "my.yaml").write_text(yaml.safe_dump({**DEMO, "models": models, **changed}))


@pytest.mark.slow
def test_another_snakefile_uses_the_rules_with_a_prefix_and_a_rule_of_its_own(tmp_path: Path) -> None:
    write_snakefile(tmp_path, f'"{ROOT}/workflow/Snakefile"')
    write_config(tmp_path)
    status, output = snakemake(tmp_path, "--dry-run")
    assert status == 0, output
    counts = job_counts(output)
    assert counts["perceptune_train_adapter"] == 2
    assert {name for name in counts if not name.startswith("perceptune_")} == {"all", "summary", "total"}


@pytest.fixture
def hosted(tmp_path: Path) -> dict[str, str]:
    """An environment in which git finds the workflow at `URL`."""
    repository = tmp_path / "repository"
    for name in ("config", "profiles"):
        shutil.copytree(ROOT / name, repository / name)
    shutil.copytree(
        ROOT / "workflow", repository / "workflow", ignore=shutil.ignore_patterns(PACKAGE.name, "__pycache__")
    )
    author = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    for command in (["init", "--quiet"], ["add", "."], [*author, "commit", "--quiet", "--message=all"], ["tag", "v1"]):
        subprocess.run(["git", *command], cwd=repository, check=True)
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{repository.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": URL,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }


@pytest.mark.slow
def test_rules_from_a_hosting_provider_use_the_installed_package(tmp_path: Path, hosted: dict[str, str]) -> None:
    source = 'github("somebody/perceptune", path="workflow/Snakefile", tag="v1")'
    write_snakefile(tmp_path, source)
    write_config(tmp_path, datasets={"shapes": {"kind": "jsonl", "path": "own.jsonl"}})
    (tmp_path / "own.jsonl").write_text('{"image": "a.png"}\n')
    status, output = snakemake(tmp_path, "perceptune_data", **hosted)
    assert status == 1
    assert output.splitlines()[-1].startswith("  own.jsonl, line 1: ")  # of `perceptune.onerror()`
    assert output.count("  own.jsonl, line 1: ") == 2  # the job cannot know of that


@pytest.mark.extended
@pytest.mark.slow
def test_snakedeploy(tmp_path: Path, hosted: dict[str, str]) -> None:
    folder = tmp_path / "deployed"
    command = ["snakedeploy", "deploy-workflow", URL, str(folder), "--tag", "v1"]
    subprocess.run(command, env={**os.environ, **hosted}, check=True)
    status, output = snakemake(folder, "--dry-run", **hosted)
    assert status == 1
    assert output.splitlines()[-1].startswith("hint: ")
    shutil.copytree(ROOT / "resources", folder / "resources")
    status, output = snakemake(folder, "--dry-run", **hosted)
    assert status == 0, output
    assert job_counts(output)["write_report"] == 1


def test_jobs_import_the_package_beside_the_rules(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": os.pathsep.join(["/other", str(PACKAGE.parent)])}
    use_package_of(str(PACKAGE.parent / "rules"), "9", environment=environment)
    assert environment["PYTHONPATH"].split(os.pathsep) == [str(PACKAGE.parent), "/other"]
    use_package_of(str(PACKAGE.parent / "rules"), "9", environment=(empty := {}))
    assert empty == {"PYTHONPATH": str(PACKAGE.parent)}
    (tmp_path / PACKAGE.name).mkdir()
    with pytest.raises(UserError, match="is already imported"):
        use_package_of(str(tmp_path / "rules"), "9", environment=(other := {}))
    assert other == {}


def test_rules_without_a_package_need_the_same_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "installed_version", lambda name: "0.1.0")
    use_package_of(str(tmp_path / "rules"), "0.1.0", environment=(environment := {}))
    assert environment == {}
    with pytest.raises(UserError, match=r"of perceptune 0\.2\.0, but perceptune 0\.1\.0 is installed"):
        use_package_of(str(tmp_path / "rules"), "0.2.0")


def test_the_rules_name_the_version_of_the_package() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f'checked(use_package_of, rules_folder, "{version}")' in (ROOT / "workflow/rules/setup.smk").read_text()


def test_a_module_cannot_move_files() -> None:
    def named(path: str) -> str:
        return path.replace("<results>", "results")

    check_paths(str, named)
    with pytest.raises(UserError, match=r"`prefix` moves `results/report.html` to `there/results/report.html`"):
        check_paths("there/{}".format, named)
    with pytest.raises(UserError, match=r"`pathvars` moves `results/report.html` to `there/report.html`"):
        check_paths(str, lambda path: path.replace("<results>", "there"))


def test_a_bundled_model_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert where_bundled("models/llava") is None
    assert where_bundled("resources/tiny-llava/model") == f"copy it: `cp -r {ROOT}/resources .`"
    monkeypatch.setattr(origin, "REPOSITORY", tmp_path)
    assert "in the repository" in str(where_bundled("resources/tiny-llava/model"))


def test_exports_need_a_block() -> None:
    with pytest.raises(UserError, match="the config has no `exports`"):
        exports(policies.load(DEMO))
    block = {"experiment": "perpo", "format": "trl"}
    assert exports(policies.load({**DEMO, "exports": {"mine": block}})) == ["<results>/exports/mine/README.md"]
