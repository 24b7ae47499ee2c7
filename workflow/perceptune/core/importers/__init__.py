"""Formats of data sets by name. A new one is a file here, a test, and a line in the dict."""

from __future__ import annotations

from perceptune.core.importers.amber import AMBER
from perceptune.core.importers.dynamath import DYNAMATH
from perceptune.core.importers.easyr1 import EASYR1
from perceptune.core.importers.geometry3k import GEOMETRY3K
from perceptune.core.importers.hallusionbench import HALLUSIONBENCH
from perceptune.core.importers.hf import HF
from perceptune.core.importers.importer import Importer
from perceptune.core.importers.jsonl import JSONL
from perceptune.core.importers.llama_factory import LLAMA_FACTORY
from perceptune.core.importers.llava_bench import LLAVA_BENCH
from perceptune.core.importers.logicvista import LOGICVISTA
from perceptune.core.importers.mathverse import MATHVERSE
from perceptune.core.importers.mathvision import MATHVISION
from perceptune.core.importers.mathvista import MATHVISTA
from perceptune.core.importers.mmhal import MMHAL
from perceptune.core.importers.mmmu_pro import MMMU_PRO
from perceptune.core.importers.ms_swift import MS_SWIFT
from perceptune.core.importers.ocr_pages import OCR_PAGES
from perceptune.core.importers.papo_eval import PAPO_EVAL
from perceptune.core.importers.parquet import PARQUET
from perceptune.core.importers.perpo import PERPO
from perceptune.core.importers.pope import POPE
from perceptune.core.importers.refcoco_parquet import REFCOCO_PARQUET
from perceptune.core.importers.refer import REFER
from perceptune.core.importers.rlhf_v import RLHF_V
from perceptune.core.importers.textvqa import TEXTVQA
from perceptune.core.importers.trl import TRL
from perceptune.core.importers.verl import VERL
from perceptune.core.importers.virl39k import VIRL39K
from perceptune.core.importers.we_math import WE_MATH

IMPORTERS: dict[str, Importer] = {
    importer.name: importer
    for importer in (
        AMBER,
        DYNAMATH,
        EASYR1,
        GEOMETRY3K,
        HALLUSIONBENCH,
        HF,
        JSONL,
        LLAMA_FACTORY,
        LLAVA_BENCH,
        LOGICVISTA,
        MATHVERSE,
        MATHVISION,
        MATHVISTA,
        MMHAL,
        MMMU_PRO,
        MS_SWIFT,
        OCR_PAGES,
        PAPO_EVAL,
        PARQUET,
        PERPO,
        POPE,
        REFCOCO_PARQUET,
        REFER,
        RLHF_V,
        TEXTVQA,
        TRL,
        VERL,
        VIRL39K,
        WE_MATH,
    )
}
