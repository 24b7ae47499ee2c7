"""The config: typed, closed blocks with names. A block holds the parameters of one stage.

Editing a block reruns that stage and everything that depends on it. Defaults are defined only here.
The JSON schema in `workflow/schemas` and the key tables in `config/README.md` are generated from
this package.
"""

from perceptune.contracts.config.blocks import (
    PLAIN_VIEWS,
    UNTRACKED,
    Block,
    Name,
    Positive,
    Prompt,
    Share,
    Task,
    takes_list,
)
from perceptune.contracts.config.comparisons import AgreementBlock, ComparisonBlock, Rubric
from perceptune.contracts.config.config import Config
from perceptune.contracts.config.datasets import Boxes, Coordinates, DatasetBlock, FileDataset, ShapesDataset
from perceptune.contracts.config.diagnostics import DiagnosticsBlock
from perceptune.contracts.config.evaluation import BenchmarkBlock, ControlsBlock, JudgeBlock, Leakage, ReportBlock
from perceptune.contracts.config.experiments import LISTS, SOURCES, WAYS, ExperimentBlock, ExportBlock, named_keys
from perceptune.contracts.config.models import UNCOMPUTED, EngineBlock, ModelBlock
from perceptune.contracts.config.pairs import (
    AnswerBlock,
    ClipBlock,
    ContrastBlock,
    FilterBlock,
    PairBlock,
    PairingBlock,
)
from perceptune.contracts.config.preferences import BatchBlock, GivenBlock, RewardBlock, SelectionBlock
from perceptune.contracts.config.sampling import Decoding, RolloutBlock, SamplingBlock
from perceptune.contracts.config.training import LoraBlock, Part, Tracker, TrainingBlock
from perceptune.contracts.config.views import LOCATE, AttentionBlock, CropBlock, SaliencyBlock, ViewBlock

__all__ = [
    "LISTS",
    "LOCATE",
    "PLAIN_VIEWS",
    "SOURCES",
    "UNCOMPUTED",
    "UNTRACKED",
    "WAYS",
    "AgreementBlock",
    "AnswerBlock",
    "AttentionBlock",
    "BatchBlock",
    "BenchmarkBlock",
    "Block",
    "Boxes",
    "ClipBlock",
    "ComparisonBlock",
    "Config",
    "ContrastBlock",
    "ControlsBlock",
    "Coordinates",
    "CropBlock",
    "DatasetBlock",
    "Decoding",
    "DiagnosticsBlock",
    "EngineBlock",
    "ExperimentBlock",
    "ExportBlock",
    "FileDataset",
    "FilterBlock",
    "GivenBlock",
    "JudgeBlock",
    "Leakage",
    "LoraBlock",
    "ModelBlock",
    "Name",
    "PairBlock",
    "PairingBlock",
    "Part",
    "Positive",
    "Prompt",
    "ReportBlock",
    "RewardBlock",
    "RolloutBlock",
    "Rubric",
    "SaliencyBlock",
    "SamplingBlock",
    "SelectionBlock",
    "ShapesDataset",
    "Share",
    "Task",
    "Tracker",
    "TrainingBlock",
    "ViewBlock",
    "named_keys",
    "takes_list",
]
