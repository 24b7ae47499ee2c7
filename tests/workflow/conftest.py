"""Real Snakemake runs from the command line, each in its own folder."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from perceptune.planning import policies
from perceptune.planning.graph import Key, Node, graph
from PIL import Image

from tests.tiny_models import build_tiny_dinov2

from .inline import run_jobs

ROOT = Path(__file__).parents[2]


INSTALLED = Path(__file__).parents[1] / "installed"
"""A package that is not installed, for configs that need one."""


@dataclass(frozen=True)
class Workflow:
    """A working directory with the project's Snakefile."""

    folder: Path

    def run(
        self, *arguments: str, config: str = "config.yaml", check: bool = True, root: Path = ROOT
    ) -> subprocess.CompletedProcess[str]:
        """`snakemake --cores 2 …` with the Snakefile and the package of `root`; output as text,
        with both streams merged.
        """
        command = ["snakemake", *self._words(*arguments, config=config, root=root)]
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=root,
            env=_environment(root),
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"snakemake ended with {done.returncode}\n{done.stdout}")
        return done

    def _words(self, *arguments: str, config: str, root: Path = ROOT) -> list[str]:
        words = ["--snakefile", str(root / "Snakefile"), "--directory", str(self.folder)]
        return [*words, "--configfile", str(self.folder / config), "--cores", "2", *arguments]

    def planned(self, *arguments: str, config: str = "config.yaml") -> set[str]:
        """Names of the rules that a run would execute now."""
        return {rule for rule, _ in self.jobs(*arguments, config=config)}

    def jobs(self, *arguments: str, config: str = "config.yaml", root: Path = ROOT) -> set[tuple[str, str]]:
        """(rule, owner) of the jobs that a run would execute now, as in needs.py; shards are
        merged.
        """
        return self._jobs_of(self.run("--dry-run", *arguments, config=config, root=root).stdout)

    def graph(self, config: str = "config.yaml") -> dict[Key, Node]:
        """All jobs of a config, computed in this process; the working directory must be the folder."""
        return graph(policies.load(yaml.safe_load((self.folder / config).read_text())))

    @staticmethod
    def _jobs_of(output: str) -> set[tuple[str, str]]:
        found = set()
        for rule, block in re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)*)", output, re.MULTILINE):
            wildcards = re.search(r"^    wildcards: (.*)$", block, re.MULTILINE)
            pairs = re.findall(r"(\w+)=([^,]+)", wildcards[1]) if wildcards else []
            if rule not in ("all", "data", "adapters", "models", "exports"):
                found.add((rule, _whose(rule, dict(pairs))))
        return found

    def edited(self, path: str, value: object, name: str = "edited.yaml") -> str:
        """Writes a copy of the config with one or more keys (separated by spaces) changed; returns
        its file name.

        Several keys share one value, or each takes its own from a tuple.
        """
        config = json.loads(
            json.dumps(yaml.safe_load((self.folder / "config.yaml").read_text()))
        )  # aliases become copies
        paths = path.split(" ")
        for one, given in zip(paths, value if isinstance(value, tuple) else [value] * len(paths), strict=True):
            *outer, last = one.split(".")
            place = config
            for key in outer:
                if place.get(key) is None:
                    place[key] = {"view": "noisy"} if key == "contrast" else {}
                place = place[key]
            place[last] = given
        (self.folder / name).write_text(yaml.safe_dump(config, sort_keys=False))
        return name


def _environment(root: Path) -> dict[str, str]:
    """Environment variables with the package of `root`, and a tracker."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": f"{root / 'workflow'}{os.pathsep}{INSTALLED}"}


def named(keys: Iterable[Key]) -> set[tuple[str, str]]:
    """The jobs of a graph, named as in needs.py; shards are merged."""
    return {(rule, _whose(rule, dict(wildcards))) for rule, wildcards in keys}


def difference(found: set[tuple[str, str]], expected: set[tuple[str, str]]) -> str:
    """A description of the differences; empty if there are none."""
    surplus, missing = (sorted(" ".join(job) for job in jobs) for jobs in (found - expected, expected - found))
    return "; ".join(f"{what} {', '.join(jobs)}" for what, jobs in (("needlessly", surplus), ("not", missing)) if jobs)


def _whose(rule: str, of: dict[str, str]) -> str:
    if rule == "compute_attention_maps":
        return f"{of['policy']} {of['dataset']} {of['attention_map']}"
    if rule == "compute_saliency_maps":
        return of["saliency_map"]
    if "stored" in of:
        return _whose_terms(of)
    if "source" in of:
        return f"{of['dataset']} {of['source']}"
    for name in ("clip_score", "crop", "filter", "pair_generation", "comparison", "agreement"):
        if name in of:
            return of[name]
    if "plan" in of:
        other = f" {of['reward']}" if of.get("reward", "perception") != "perception" else ""
        return f"{of['policy']} {of['plan']}{other}"
    return of.get("policy") or of.get("experiment") or of.get("dataset") or ""


def _whose_terms(of: dict[str, str]) -> str:
    if of["stored"].startswith("old@"):
        return f"{of['policy']} {of['stored']}"
    view = of["stored"].removeprefix("reference@")
    if "/" not in of["groups"]:
        return f"{of['groups']} {view}"
    return of["policy"] if view == "original" else view


def _own_images(folder: Path) -> None:
    """Eight images with questions, as a user's own dataset."""
    folder.mkdir()
    lines = []
    for number in range(8):
        image = Image.new("RGB", (64, 48), "white")
        image.paste("red", (4 + number, 8, 30 + number, 40))
        image.save(folder / f"{number}.png")
        row = {"image": f"{number}.png", "question": "locate the red square.", "box": [4 + number, 8, 30 + number, 40]}
        row["answers_given"] = [
            {"text": "[0.20, 0.20, 0.40, 0.60]", "reward": 1.0},
            {"text": "[0.90, 0.90, 0.91, 0.91]", "reward": 0.0},
        ]
        lines.append(json.dumps({**row, "task": "grounding", "split": "test"}))
    (folder / "data.jsonl").write_text("\n".join(lines) + "\n")


def _own_pairs(config: dict[str, Any]) -> None:
    """P2-DPO in addition to the other experiments, on the same questions."""
    demo = yaml.safe_load((ROOT / "config/demo-p2dpo.yaml").read_text())
    first = demo["attention_maps"]["first-token"]
    config["attention_maps"] = {"first": first, "test": {**first, "split": "test"}}
    config["crops"] = {"salient": {"attention_map": "first", "base": [40, 40]}}
    config["views"] = {name: demo["views"][name] for name in ("enhanced", "degraded", "noisy")} | {
        "clean": {"type": "original"}
    }
    config["pair_generations"] = demo["pair_generations"]
    config["pair_generations"]["self-made"]["robust"]["chosen"]["view"] = "clean"
    config["pair_generations"]["another"] = config["pair_generations"]["self-made"]
    config["filters"], config["clip_scores"] = demo["filters"], demo["clip_scores"]
    config["trainings"]["p2dpo"] = demo["trainings"]["p2dpo"]
    config["benchmarks"]["shapes-test"]["attention_map"] = "test"
    config["experiments"]["p2dpo"] = {
        "model": "tiny", "dataset": "shapes", "pair_generation": "self-made", "filter": "central", "training": "p2dpo",
        "benchmarks": ["shapes-test"],
    }  # fmt: skip


def _own_answers(config: dict[str, Any]) -> None:
    """An experiment that learns from dataset preferences in the user's own file, and an export."""
    config["dataset_preferences"] = {name: {"split": "test"} for name in ("taken", "others")}
    config["trainings"]["taught"] = {**config["trainings"]["dpo"], "batch_size": 4}
    config["experiments"]["given"] = {
        "model": "tiny", "dataset": "own", "dataset_preference": "taken", "training": "taught", "benchmarks": ["own-test"],
    }  # fmt: skip
    config["exports"] = {"out": {"experiment": "dpo", "format": "trl"}}


def _own_rounds(config: dict[str, Any]) -> None:
    """Two methods that learn in rounds, on the same questions; they share the first round's
    answers.
    """
    demo = yaml.safe_load((ROOT / "config/demo-rounds.yaml").read_text())
    config["views"] |= {name: demo["views"][name] for name in ("masked", "covered", "zoomed", "removing")}
    config["saliency_maps"] = {"dino": {"path": "dino", "layers": [1, 2], "size": 112}}
    config["views"] |= {
        "hidden": {"type": "semantic", "saliency_map": "dino"},
        "either": {"choice": ["masked", "hidden"]},
    }
    config["rollouts"] = {name: {"questions": 12, "n": 4, "max_tokens": 24} for name in ("g4", "later")}
    config["batch_selections"] = {"all": {}}
    for name, method in (("grpo", "grpo"), ("papo", "papo_g")):
        training = {**demo["trainings"][method], "batch_size": 4, "save_steps": 1, "limits": {}}
        config["trainings"][name] = training
    config["trainings"]["papo"]["parameters"] = {"mask": "either"}
    experiment = {
        "model": "tiny", "dataset": "shapes", "rollout": "g4", "reward": "perception", "batch_selection": "all", "benchmarks": ["own-test"],
    }  # fmt: skip
    config["experiments"]["grpo"] = {**experiment, "training": "grpo", "rounds": 2, "evaluate_every": 2}
    config["experiments"]["papo"] = {**experiment, "training": "papo", "rounds": 1}


@pytest.fixture
def workflow(tmp_path: Path) -> Workflow:
    """A fresh working directory with the bundled model."""
    (tmp_path / "resources").symlink_to(ROOT / "resources")
    return Workflow(tmp_path)


def prepare_chain(folder: Path) -> Workflow:
    """A small version of the demo's chain in `folder`, with a second benchmark on the user's images."""
    (folder / "resources").symlink_to(ROOT / "resources")
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    config["models"]["tiny"]["threads"] = 1  # two small jobs at once
    config["datasets"]["shapes"] |= {"train": {"grounding": 48}, "test": {"grounding": 24}}
    config["samplings"]["n20"]["n"] = 6
    config["selections"]["ranked"] |= {"list_size": 4, "min_margin": 0.1}
    config["benchmarks"]["shapes-test"] |= {"n": 4, "resamples": 99}
    _own_images(folder / "own")
    build_tiny_dinov2(folder / "dino")
    config["datasets"]["own"] = {"kind": "jsonl", "path": "own/data.jsonl"}
    config["benchmarks"]["own-test"] = {**config["benchmarks"]["shapes-test"], "dataset": "own"}
    config["experiments"]["perpo"] = {**config["experiments"]["perpo"], "benchmarks": ["shapes-test", "own-test"]}
    _own_pairs(config)
    _own_rounds(config)
    _own_answers(config)
    for section, name in (
        ("models", "tiny"),
        ("samplings", "n20"),
        ("rewards", "perception"),
        ("selections", "ranked"),
        ("attention_maps", "first"),
        ("crops", "salient"),
        ("filters", "central"),
        ("batch_selections", "all"),
        ("saliency_maps", "dino"),
    ):
        config[section]["other"] = dict(config[section][name])  # a block that nothing uses yet
    # no policy has answers for them to judge; tests/workflow/test_judge_chain.py has a judge
    config["judges"] = {name: {"model": "nobody", "url": "http://localhost:1/v1"} for name in ("stub", "second")}
    config["benchmarks"]["judged"] = {"dataset": "own", "protocol": "mmhal", "judge": "stub", "max_tokens": 24}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return Workflow(folder)


def _to_edit(folder: Path) -> None:
    """Adds the files that the edits in edits.py refer to."""
    shutil.copytree(ROOT / "resources/tiny-llava/model", folder / "same-model")
    shutil.copytree(ROOT / "resources/tiny-clip/model", folder / "same-clip")
    shutil.copytree(folder / "dino", folder / "same-dino")
    for name in ("other.jsonl", "instances.json"):
        shutil.copy(folder / "own/data.jsonl", folder / "own" / name)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """The chain of `prepare_chain` after one complete run, in this process to save minutes, and the files
    that edits refer to.

    `--touch` makes Snakemake record the jobs as its own. test_chain.py compares the tables with those
    of a run by Snakemake.
    """
    workflow = prepare_chain(tmp_path_factory.mktemp("finished"))
    run_jobs(workflow.folder)
    workflow.run("--touch", "--forceall")
    _to_edit(workflow.folder)
    return workflow
