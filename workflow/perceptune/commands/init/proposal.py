"""The config for a dataset and a model: every value, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from perceptune.commands.init.detection import DETECTION, dataset_name
from perceptune.commands.init.looking import Look
from perceptune.commands.init.model import PIXELS, Model
from perceptune.commands.init.prompts import PLAIN, prompt_for
from perceptune.commands.init.text import Block, Said
from perceptune.core.answers.boxes import Frame

Learning = Literal["lists", "pairs", "rounds"]
REWARDS = {
    "grounding": Said("iou", "overlap of the boxes, 0 to 1"),
    "ocr": Said("edit_distance", "share of the text that is right, 0 to 1"),
    "existence": Said("yes_no", "1 if yes or no is right"),
    "counting": Said("exact_match", "1 if the number is right"),
    "open": Said("exact_match", "1 if the answer is the same, ignoring case"),
}
GRADED = ("grounding", "ocr")
"""Tasks whose rewards have values between 0 and 1."""
NEAR = Said("edit_distance", "for the tiny model, which is hardly ever right; `exact_match` for others")
UNRATED = Said("free_text", "no ground truth: the report shows the answers, and a judge can rate them")
LISTS, GROUPS = 20, 8
"""Responses to a question: for ranked lists, and for each group of a round."""
WORDED = {"grounding": "locate the {category}.", "counting": "how many {category} are there?"}
"""Questions about boxes in the words of the bundled model, which has no capital letters."""
QUICK = {"train": 100, "test": 50}
"""Questions per task with the bundled model."""
MOST = {"train": 5000, "test": 500}
"""Questions per task with another one; more take long, and few results need them."""
FEW = 100
"""Questions below which results say little."""
FEWEST = 30
"""Questions below which the report shows no intervals (`report.results.FEW_QUESTIONS`, which would load
Polars)."""
SHORT, FRACTIONS, PHRASE, BOX, PAGE = 16, 24, 64, 128, 2048
"""Tokens of answers: a word or number, a box as fractions, a phrase, a box in JSON, a page."""


@dataclass(frozen=True)
class Proposal:
    """The decisions from which a config follows."""

    look: Look
    model: Model
    learning: Learning
    rounds: int
    train: str
    test: Look
    """The data for tests, which may be the same."""
    split: str
    """Their split for tests."""
    share: float | None
    """Share of the images to hold out."""
    held_out: int | None = None
    """Questions that `share` holds out, if they were counted."""
    frame: Frame | None = None
    """Coordinates of the model's boxes, if its family does not know them."""

    @cached_property
    def tasks(self) -> list[str]:
        """The tasks that are trained on or tested."""
        held_out = self.test.tasks_of(self.train if self.share else self.split)
        return list(dict.fromkeys([*self.look.tasks_of(self.train), *held_out]))

    @property
    def name(self) -> str:
        """The name of the dataset."""
        return dataset_name(Path(self.look.block.path))

    @property
    def method(self) -> str:
        """The training method, which is also the name of the experiment."""
        if self.learning == "rounds":
            return "grpo"
        return "perpo" if self.learning == "lists" and self._graded else "dpo"

    @property
    def model_name(self) -> str:
        """The name of the model block, other than that of the experiment."""
        return f"{self.model.name}-base" if self.model.name == self.method else self.model.name

    @property
    def _graded(self) -> bool:
        return any(task in GRADED or (task == "open" and self.model.bundled) for task in self.tasks)

    @property
    def _rated(self) -> bool:
        """Whether the test questions have a ground truth."""
        return self.test.with_truth == self.test.tasks.total() and self.test.block.kind not in RESPONSES

    @property
    def questions(self) -> int:
        """About how many questions there are to train on."""
        count = self.look.count(self.train)
        held_out = round(count * (self.share or 0)) if self.held_out is None else self.held_out
        return min(count - held_out, self._limit("train", self.look) or count)

    def warnings(self) -> list[str]:
        """What spoils a run of this config that is valid all the same."""
        tested, about = self.test.count(self.train if self.share else self.split), "about "
        if not self.share or self.held_out is not None:
            tested, about = tested if self.held_out is None else self.held_out, ""
        else:
            tested = round(tested * self.share)
        found = []
        if self.questions < FEW:
            found.append(
                f"about {self.questions} questions to train on: enough to see that everything runs, not for a gain"
            )
        if tested < FEW:
            what = (
                "the confidence intervals of the report will be wide"
                if tested >= FEWEST
                else f"below {FEWEST}, the report shows no confidence intervals"
            )
            found.append(f"{about}{tested} question{'s' if tested != 1 else ''} for tests: {what}")
        return found

    def config(self) -> dict[str, Any]:
        """The sections, with comments."""
        found: dict[str, Any] = {"models": self._models(), "datasets": self._datasets()}
        if self.learning == "rounds":
            found |= {"rollouts": self._rollouts(), "batch_selections": {"all": Said({}, "all questions of a round")}}
        elif self.learning == "lists":
            found |= {"samplings": self._samplings()}
        rated = self.learning != "pairs" or self._rated
        known = {**REWARDS, "open": NEAR} if self.model.bundled else REWARDS
        rewards = {task: known[task] if rated else UNRATED for task in self.tasks}
        found["rewards"] = {"perception": {"tasks": rewards}}
        if self.learning == "lists":
            found["selections"] = self._selections()
        elif self.learning == "pairs":
            found["dataset_preferences"] = {"pairs": self._pairs()}
        return {
            **found,
            "trainings": {self.method: self._training()},
            "benchmarks": {f"{self.name}-test": self._benchmark()},
            "experiments": {self.method: self._experiment()},
            "report": {"title": self.name},
        }

    def _models(self) -> dict[str, Any]:
        model, family = self.model, self.model.family
        block: dict[str, Any] = {"path": model.path, "family": family.name}
        if family.name == "auto":
            block["family"] = Said("auto", "docs/families.md says what it takes from the model's files")
            if self.frame:
                why = "how the model writes boxes; the log of the scores says if another format fits better"
                block["coordinates"] = Said(self.frame, why)
        elif "grounding" in self.tasks:
            block["family"] = Said(family.name, f"it writes boxes as `{family.frame}` (config/README.md)")
        if model.bundled:
            block |= {
                "dtype": "float32",
                "max_model_len": model.length,
                "engine": Said({"enforce_eager": True}, "starts faster"),
            }
            why = (
                "The bundled tiny model, so that the config runs at once, also on a CPU. It knows only coloured"
                " shapes: its results mean nothing. `perceptune init` with `--model FOLDER` writes the config for"
                " another model, with its prompt and sizes (docs/data.md says how to fetch one)."
            )
            return {self.model_name: Block(block, why)}
        if family.resizes_by_pixels:
            block["pixels"] = Said([*PIXELS], "1,000,000 pixels are about 1,300 tokens; more show more detail")
        block["max_model_len"] = Said(self._length, "tokens of prompt, images and answer")
        return {self.model_name: block}

    @property
    def _length(self) -> int:
        tokens = self._tokens
        longest = self.model.length + (tokens if tokens > PHRASE * 8 and not self.model.bundled else 0)
        return min(longest, self.model.positions or longest)

    def _datasets(self) -> dict[str, Any]:
        block = self._dataset(self.look)
        if self.share:
            block["test_share"] = Said(
                self.share, "share of the images held out as the test split, which the data lack"
            )
        if self.test is self.look:
            return {self.name: block}
        return {self.name: block, f"{self.name}-test": self._dataset(self.test)}

    def _dataset(self, seen: Look) -> dict[str, Any]:
        """The block of a dataset, without defaults."""
        block = seen.block.model_dump(mode="json", exclude_defaults=True)
        said = {key: Said(value, WHY.get(key, "").format(kind=seen.block.kind)) for key, value in block.items()}
        if self.model.bundled and seen.block.kind in DETECTION:
            question = {"question": next(WORDED[task] for _, task in seen.tasks if task in WORDED)}
            said["parameters"] = Said({**block.get("parameters", {}), **question}, "in words that the tiny model knows")
        return said

    @property
    def _prompt(self) -> Said:
        if self.model.bundled:
            return Said(PLAIN, "the tiny model knows no instructions")
        if self.learning == "pairs":
            return Said(PLAIN, "as in training on the pairs")
        return Said(*prompt_for(self.model.family.name, self.tasks, self.look.questions))

    @property
    def _tokens(self) -> int:
        """Tokens of the longest answer."""
        needed = [SHORT]
        box = FRACTIONS if self.model.bundled else BOX
        for task in self.tasks:
            longest = max(self.look.lengths.get(task, 0), self.test.lengths.get(task, 0))
            least = {"grounding": box, "ocr": PHRASE, "open": PHRASE}.get(task, SHORT)
            # a token has two characters or more in most scripts
            needed.append(min(max(least, -(-longest // 2 // PHRASE) * PHRASE if task in ("ocr", "open") else 0), PAGE))
        return min(max(needed), BOX if self.model.bundled else self.model.length // 2)

    def _limit(self, use: str, seen: Look) -> int | None:
        """The most questions per task to use; None if there are not more."""
        most = QUICK[use] if self.model.bundled else MOST[use]
        split = self.train if use == "train" or self.share else self.split
        largest = max((number for (one, _), number in seen.tasks.items() if one == split), default=0)
        return most if largest > most or seen.partial else None

    def _limited(self, use: str, seen: Look) -> dict[str, Any]:
        why = "questions per task, for a quick start; remove this key to use all"
        return {"limit": Said(limit, why)} if (limit := self._limit(use, seen)) else {}

    def _asked(self, n: int, why: str) -> dict[str, Any]:
        tokens = Said(self._tokens, "longest answer, in tokens")
        return {"n": Said(n, why), "max_tokens": tokens, "prompt": self._prompt}

    def _split(self, split: str, usual: str) -> dict[str, Any]:
        return {} if split == usual else {"split": split}

    def _samplings(self) -> dict[str, Any]:
        n = GROUPS if self.model.bundled else LISTS
        asked = self._asked(n, "responses per question; more find better best and worse worst ones")
        return {f"n{n}": {**asked, **self._split(self.train, "train"), **self._limited("train", self.look)}}

    def _rollouts(self) -> dict[str, Any]:
        asked = self._asked(GROUPS, "responses per question, which are compared with each other")
        questions = Said(self._per_round, "questions per round, drawn without replacement")
        return {f"g{GROUPS}": {"questions": questions, **asked, **self._split(self.train, "train")}}

    @property
    def _per_round(self) -> int:
        return max(min(32 if self.model.bundled else 128, self.questions), 1)

    def _selections(self) -> dict[str, Any]:
        if not self._graded:
            margin = Said(0.5, "rewards are 0 or 1: keep questions with right and wrong responses")
        elif self.model.bundled:
            margin = Said(0.05, "smallest difference of best and worst reward; 0.3 for models that know the task")
        else:
            margin = Said(0.3, "smallest difference of best and worst reward; smaller ones are noise")
        return {
            "ranked": {"list_size": Said(8 if self.model.bundled else 10, "responses per list"), "min_margin": margin}
        }

    def _pairs(self) -> Said | dict[str, Any]:
        keys = {**self._split(self.train, "train"), **self._limited("train", self.look)}
        return keys or Said({}, "all ranked answers in the data; `prompt` and `min_margin` are optional")

    def _training(self) -> dict[str, Any]:
        tiny, rounds = self.model.bundled, self.learning == "rounds"
        groups = self._per_round // 4 if rounds else self.questions // 8
        most = 16 if tiny else 32
        batch = next((size for size in (32, 16, 8, 4, 2) if size <= min(most, max(groups, 2))), 2)
        what = "groups per step: 3 to 8 steps per round are best" if rounds else "lists per step"
        beta = {"beta": 0.01} if rounds else {"beta": 0.1}
        block: dict[str, Any] = {
            "method": Said(self.method, f"`perceptune describe method {self.method}` explains it"),
            "parameters": {**beta, "gamma": 0.5} if self.method == "perpo" else beta,
            "learning_rate": (2e-4 if rounds else 1e-4) if tiny else 1e-5 if rounds else 5e-6,
            "lora": {"r": 32, "alpha": 64} if tiny else {"r": 64, "alpha": 128},
            "batch_size": Said(batch, f"{what}; up to {most} with more questions" if batch < most else what),
        }
        block["parameters"] = Said(block["parameters"], "a higher beta keeps the policy closer to the model")
        rate = (
            "where to start with LoRA; 5.0e-6 to 4.0e-5 are usual in rounds" if rounds else "where to start with LoRA"
        )
        block["learning_rate"] = Said(block["learning_rate"], "for the tiny model" if tiny else rate)
        block["lora"] = Said(block["lora"], "rank and scale of the adapter")
        if rounds:
            limits = {"policy_gap_at_start": [None, 1e-3], "old_kl": [None, 0.2 if tiny else 0.02]}
            block["scheduler"] = "constant"
            block["limits"] = Said(limits, "a round that exceeds one is undone (docs/rounds.md)")
        if not tiny:
            block["gradient_checkpointing"] = Said(True, "less memory, more time; remove it if the GPU has room")
        return block

    def _benchmark(self) -> dict[str, Any]:
        name = self.name if self.test is self.look else f"{self.name}-test"
        asked = self._asked(4 if self.model.bundled else 8, "sampled answers per question, for best-of-N")
        if self.learning != "pairs":
            asked["prompt"] = Said(self._prompt.value, "as in training")
        block = {"dataset": name, "reward": "perception", **self._split(self.split, "test"), **asked}
        return {**block, **self._limited("test", self.test)}

    def _experiment(self) -> dict[str, Any]:
        sources: Mapping[Learning, dict[str, Any]] = {
            "lists": {"sampling": next(iter(self._samplings())), "reward": "perception", "selection": "ranked"},
            "pairs": {"dataset_preference": "pairs"},
            "rounds": {"rollout": f"g{GROUPS}", "reward": "perception", "batch_selection": "all"},
        }
        rounds = {"rounds": Said(self.rounds, "raise it later to go on from the last round")}
        return {
            "model": self.model_name,
            "dataset": self.name,
            **sources[self.learning],
            "training": self.method,
            **(rounds if self.learning == "rounds" else {}),
            "benchmarks": [f"{self.name}-test"],
        }


RESPONSES = ("trl", "llama_factory", "ms_swift", "rlhf_v")
"""Formats of preference pairs. What they have as an answer is the chosen response."""
WHY = {
    "images": "the folder that image names are relative to",
    "coordinates": "unit of the boxes, found from the images' sizes",
    "boxes": "order of their four numbers, found likewise",
    "task": "of rows that name none",
    "split": "of rows that name none",
    "parameters": "`perceptune describe importer {kind}` explains them",
}


def summary(seen: Look) -> str:
    """What is in the data, in one line."""
    more = "at least " if seen.partial else ""
    parts = []
    for split in seen.splits:
        tasks = ", ".join(f"{seen.tasks[split, task]:,} {task}" for task in seen.tasks_of(split))
        parts.append(f"{split}: {tasks}")
    return f"{more}{seen.rows:,} rows ({'; '.join(parts)}) about {len(seen.images):,} images"
