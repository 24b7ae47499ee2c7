"""How much disk space a run needs: an estimate from the config, headers of weights, and counts of
questions."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from perceptune.contracts import paths
from perceptune.contracts.config import AttentionBlock, RolloutBlock, SaliencyBlock, ShapesDataset
from perceptune.planning.benchmarks import attention_tables
from perceptune.planning.model_folders import feature_numbers, tensors
from perceptune.planning.policies import REQUEST_SECTIONS, Plan
from perceptune.planning.questions import Asked, Counts, asked, counted
from perceptune.planning.resources import FLOAT
from perceptune.planning.sizes import BYTES, adapter_count, embedded_bytes
from perceptune.planning.views import crop_tables, requested_views, saliency_tables, views_trained

RESPONSE_TOKEN = 10.0
"""Bytes of a response in its table, per token: id, log-prob and text. The demo, with its small
vocabulary, has 6.3; random tokens of a vocabulary of 150,000 have 9.7."""
REWARD = 34.0
"""Bytes of a reward without the response's text: value, components and parsed answer (demo)."""
REWARD_TOKEN = 2.5
"""Bytes of the text stored with a reward, per token; 1.2 in the demo."""
LIST_TOKEN = 5.0
"""Bytes of a response in a list to train on, per token: id and text."""
LOGPROB_TOKEN = 5.2
"""Bytes of a stored log-prob; 4.3 in the demo."""
PATCHES = 1024
"""Cells of an attention map, and tokens of an image, an assumption: 576 for LLaVA-1.5, more for large
images."""
PICTURE = 4400
"""Bytes of a generated image and its question: one block of a file system, and a line."""
MOMENTS = 2
"""Moments of AdamW per parameter."""
CHECKPOINTS = 3
"""Checkpoints that exist while the third is written: two are kept."""


@dataclass(frozen=True)
class Use:
    """What one file, or a folder, needs."""

    kind: str
    path: str
    bytes: float


@dataclass(frozen=True)
class Estimate:
    """Disk space that a run still needs. Files that exist need none."""

    kinds: dict[str, float]
    """Kind of file to bytes. `TEMPORARY` ones are removed."""
    uncounted: tuple[str, ...]
    """Datasets that are not imported yet, and models without weights, as text."""
    folder: str
    free: int
    """Bytes that are free there."""

    @property
    def total(self) -> float:
        """Bytes of all kinds, except those that only other targets write."""
        return sum(size for kind, size in self.kinds.items() if kind not in OTHER_TARGETS)


ANSWERS, LISTS, ADAPTERS = "answers and rewards", "lists and log-probs", "adapters"
IMAGES, MAPS, FEATURES = "images", "attention and saliency maps", "image features"
JOURNAL, MERGED, CHECKPOINT = "answers being sampled", "weights with an adapter", "checkpoints"
TEMPORARY = (JOURNAL, MERGED, CHECKPOINT)
"""Kinds that exist only while a job runs; those of the largest job count."""
MODELS, EXPORTS = "exported models", "images of exported preferences"
OTHER_TARGETS = {MODELS: "snakemake models", EXPORTS: "snakemake exports"}
"""Kinds that `snakemake` alone does not write, and the command that does."""


def estimate(plan: Plan, *, exports: bool, tables: Mapping[str, Path] | None = None) -> Estimate:
    """The disk space that a run still needs in its results folder: an upper limit for answers, which
    may be shorter than `max_tokens`.

    Logs, the report and other small files are not included. `exports` adds `EXPORTS`, for which
    the size of every image file is read. `tables` are `examples` tables of datasets that are not
    imported yet.
    """
    root = paths.REHEARSAL["results"] if plan.config.rehearse else "results"
    counts = counted(plan.config, tables)
    uses = {use.path: use for use in [*_answers(plan, counts), *_lists(plan, counts), *_weights(plan)]}
    uses |= {use.path: use for use in [*_maps(plan, counts), *_features(plan, counts), *_images(plan)]}
    if exports:
        uses |= {use.path: use for use in _exported_images(plan, tables or {})}
    kinds = dict.fromkeys((ANSWERS, LISTS, ADAPTERS, MAPS, FEATURES, IMAGES, *TEMPORARY, *OTHER_TARGETS), 0.0)
    for use in uses.values():
        if not Path(use.path.split("#")[0].replace("<results>", root)).exists():
            most = max(kinds[use.kind], use.bytes)
            kinds[use.kind] = most if use.kind in TEMPORARY else kinds[use.kind] + use.bytes
    folder = Path(root)
    while not folder.exists():
        folder = folder.absolute().parent
    uncounted = [f"dataset `{name}`" for name in plan.config.used_datasets() if name not in counts]
    uncounted += [f"model `{name}`" for name in _bases(plan) if not tensors(Path(plan.config.models[name].path))]
    free = shutil.disk_usage(folder).free
    return Estimate({kind: bytes for kind, bytes in kinds.items() if bytes}, tuple(uncounted), root, free)


def too_little(found: Estimate) -> Iterator[str]:
    """A line if less space is free than the estimate."""
    if found.total > found.free:
        more = f" (without {', '.join(found.uncounted)}, not known yet)" if found.uncounted else ""
        yield (
            f"the run may write up to {size(found.total)} to `{found.folder}`{more}, where {size(found.free)} are free; "
            "`perceptune check` shows what for"
        )


def size(number: float) -> str:
    """Bytes as text: `3.2 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 99.5 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def _bases(plan: Plan) -> list[str]:
    """The models that are trained."""
    return list(dict.fromkeys(experiment.model for experiment in plan.config.experiments.values()))


def _request_plans(plan: Plan) -> dict[str, list[str]]:
    """`Plan.request_plans` of every policy that answers questions, in one pass: there can be hundreds
    of rounds."""
    found: dict[str, dict[str, None]] = {policy: {"benchmarks": None} for policy in plan.policies}
    for policy in plan.trained:
        made = plan.samples(policy)
        names = {f"{made['dataset']}/{made[key]}": None for key in REQUEST_SECTIONS if key in made}
        found.setdefault(made["policy"], {}).update(names)
    return {policy: list(names) for policy, names in found.items()}


def _answers(plan: Plan, counts: Counts) -> Iterator[Use]:
    for policy, names in _request_plans(plan).items():
        for name in names:
            blocks = list(asked(plan, policy, name))
            place = {"policy": policy, "plan": name}
            tokens = sum(_tokens(block, counts) for block in blocks)
            table = paths.RESPONSES.format(**place)
            yield Use(ANSWERS, table, RESPONSE_TOKEN * tokens)
            yield Use(JOURNAL, f"{table}#journal", 2 * RESPONSE_TOKEN * tokens)  # in the journal, and by shard
            for reward in {reward: None for block in blocks for reward in block.rewards}:
                scored = [block for block in blocks if reward in block.rewards]
                number = sum(block.questions(counts) * sum(t.answers for t in block.turns) for block in scored)
                texts = sum(_tokens(block, counts) for block in scored)
                yield Use(ANSWERS, paths.REWARDS.format(**place, reward=reward), REWARD * number + REWARD_TOKEN * texts)


def _tokens(block: Asked, counts: Counts) -> int:
    """The most tokens that the answers to a block's questions can have."""
    return block.questions(counts) * sum(turn.answers * turn.max_tokens for turn in block.turns)


def _lists(plan: Plan, counts: Counts) -> Iterator[Use]:
    """What policies train on, made of their answers, with stored log-probs. The lengths of the
    answers of datasets are not known."""
    for policy in plan.trained:
        made, block = plan.samples(policy), plan.block(policy)
        section = block.made_of[0]
        if section == "dataset_preference":
            continue
        (one,) = asked(plan, made["policy"], f"{made['dataset']}/{made[section]}")
        tokens = _tokens(one, counts)
        if block.selection:
            tokens = tokens * min(plan.config.selections[block.selection].list_size, one.turns[0].answers)
            tokens //= one.turns[0].answers
        twice = 2 if section in ("pair_generation", "rollout") else 1  # unfiltered pairs; entropies
        yield Use(LISTS, plan.preferences(policy), LIST_TOKEN * tokens * (2 if section == "pair_generation" else 1))
        tables: dict[str, int] = {}
        for table in plan.stored_logprobs(policy).values():
            tables[table] = tables.get(table, 0) + 1
        for table, terms in tables.items():
            yield Use(LISTS, table, LOGPROB_TOKEN * tokens * terms * (twice if section == "rollout" else 1))


def _weights(plan: Plan) -> Iterator[Use]:
    """Adapters, checkpoints and merged weights."""
    blocks = {name: plan.config.models[name] for name in _bases(plan)}
    sizes = {
        name: sum(max(one.bytes, one.count * BYTES[block.dtype]) for one in tensors(Path(block.path)).values())
        for name, block in blocks.items()
    }
    asked_of = _request_plans(plan)
    for experiment, trained in plan.config.experiments.items():
        training, rounds = plan.config.trainings[trained.training], plan.rounds(experiment)
        adapter = FLOAT * adapter_count(plan, experiment)
        carried = MOMENTS * adapter if rounds and training.optimizer == "carry" else 0
        kept = plan.epochs(experiment)
        for policy in [*kept, *(rounds or [experiment])]:
            path = paths.ADAPTER.format(experiment=policy)
            yield Use(ADAPTERS, path, adapter * 2 if policy in kept else adapter + carried)  # kept ones are copied
            if policy not in kept:
                checkpoints = CHECKPOINTS * (1 + MOMENTS) + len(kept)
                yield Use(CHECKPOINT, f"{path}#checkpoints", checkpoints * adapter)
            for name in asked_of.get(policy, ()):
                table = paths.RESPONSES.format(policy=policy, plan=name)
                yield Use(MERGED, f"{table}#merged", sizes[trained.model])
    for policy in plan.final:
        yield Use(MODELS, paths.MODEL_CARD.format(policy=policy), sizes[plan.base(policy)])


def _maps(plan: Plan, counts: Counts) -> Iterator[Use]:
    """Attention maps of benchmarks and crops, and saliency maps."""
    config = plan.config
    for policy, names in _request_plans(plan).items():
        for benchmark, table in attention_tables(plan, policy).items():
            block = config.benchmarks[benchmark]
            maps = config.attention_maps[str(block.attention_map)]
            yield Use(MAPS, table, FLOAT * PATCHES * _examples(maps, block.dataset, counts))
        for name in names:
            for dataset in plan.datasets(policy, name):
                for crop in crop_tables(plan, policy, dataset, requested_views(plan, policy, name, dataset)):
                    named = config.crops[crop].attention_map
                    table = paths.ATTENTION.format(policy=plan.base(policy), dataset=dataset, attention_map=named)
                    number = _examples(config.attention_maps[named], dataset, counts)
                    yield Use(MAPS, table, FLOAT * PATCHES * number)
    for experiment, trained in config.experiments.items():
        views = views_trained(plan, (plan.rounds(experiment) or [experiment])[0])
        for name, table in saliency_tables(plan, trained.dataset, views).items():
            saliency = config.saliency_maps[name]
            patches = (saliency.size / 14) ** 2
            yield Use(MAPS, table, FLOAT * patches * _examples(saliency, trained.dataset, counts))


def _features(plan: Plan, counts: Counts) -> Iterator[Use]:
    """Features of the images that models with a cache see in training and for log-probs: of each question
    under each view. In 16 bits, log-probs have others than training, without mixed precision, except in
    rounds. Rounds draw new questions until all have been used.
    """
    found: dict[tuple[str, ...], tuple[str, int]] = {}
    for policy in plan.trained:
        block, training, model = plan.block(policy), plan.training(policy), plan.config.models[plan.base(policy)]
        if not model.feature_cache:
            continue
        source = getattr(block, block.made_of[0])
        chosen = plan.config.sources()[source]
        limit, drawn = (None, chosen.questions) if isinstance(chosen, RolloutBlock) else (chosen.limit, None)
        asked_of = Asked("", "", block.dataset, chosen.split, chosen.tasks, limit, (), (), drawn)
        of_logprobs = "mixed" if block.rollout or model.dtype == "float32" else "plain"
        precisions = {"mixed"} if training.lora.parts == ("language",) else set()
        precisions |= {of_logprobs} if plan.stored_logprobs(policy) else set()
        for key in product([plan.base(policy)], [block.dataset], [source], views_trained(plan, policy), precisions):
            number = asked_of.questions(counts)
            if block.rollout:
                number = min(number + found.get(key, ("", 0))[1], replace(asked_of, drawn=None).questions(counts))
            found[key] = (policy, number)
    for (name, *_, view, precision), (policy, number) in found.items():
        model = plan.config.models[name]
        size = number * PATCHES * feature_numbers(model) * BYTES[model.dtype]
        yield Use(FEATURES, f"{paths.ADAPTER.format(experiment=policy)}#features {view} {precision}", size)


def _examples(block: AttentionBlock | SaliencyBlock, dataset: str, counts: Counts) -> int:
    return Asked("", "", dataset, block.split, block.tasks, block.limit, (), ()).questions(counts)


def _images(plan: Plan) -> Iterator[Use]:
    """Generated images, and images inside data files, which the import copies into its table."""
    for name in plan.config.used_datasets():
        block = plan.config.datasets[name]
        if isinstance(block, ShapesDataset):
            number = sum(n for tasks in (block.train, block.validation, block.test) for n in tasks.values())
            yield Use(IMAGES, paths.DATA.format(dataset=name), PICTURE * number)
        else:
            yield Use(IMAGES, paths.EXAMPLES.format(dataset=name), embedded_bytes(block))


def _exported_images(plan: Plan, tables: Mapping[str, Path]) -> Iterator[Use]:
    """Copies of the images of imported datasets, each once; at most those of all splits."""
    for name in plan.config.exports:
        dataset = plan.block(plan.exported(name)).dataset
        try:
            copied = _image_bytes(tables.get(dataset, Path(paths.EXAMPLES.format(dataset=dataset))))
        except (OSError, pa.ArrowException):  # not imported, or not a table, as its readers say
            continue
        yield Use(EXPORTS, paths.EXPORT.format(export=name), copied)


def _image_bytes(table: Path) -> int:
    """Bytes of the images that an `examples` table contains or refers to."""
    size, named = 0, set[str]()
    with pq.ParquetFile(table, pre_buffer=False) as file:
        for number in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(number)
            columns = map(group.column, range(group.num_columns))
            size += sum(c.total_compressed_size for c in columns if c.path_in_schema.endswith(".bytes"))
        for batch in file.iter_batches(columns=["images.list.element.path"]):
            named.update(batch["images"].flatten().field("path").unique().to_pylist())
    return size + sum(Path(path).stat().st_size for path in named if path and Path(path).exists())
