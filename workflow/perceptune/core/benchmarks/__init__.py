"""Published benchmarks by name. A new one is a file here, a test, and a line in the dict."""

from __future__ import annotations

from perceptune.core.benchmarks.amber import AMBER
from perceptune.core.benchmarks.amber_discriminative import AMBER_DISCRIMINATIVE
from perceptune.core.benchmarks.amber_generative import AMBER_GENERATIVE
from perceptune.core.benchmarks.benchmark import Benchmark
from perceptune.core.benchmarks.dynamath import DYNAMATH
from perceptune.core.benchmarks.geometry3k_cppo import GEOMETRY3K_CPPO
from perceptune.core.benchmarks.geometry3k_papo import GEOMETRY3K_PAPO
from perceptune.core.benchmarks.hallusionbench import HALLUSIONBENCH
from perceptune.core.benchmarks.llava_bench import LLAVA_BENCH
from perceptune.core.benchmarks.logicvista import LOGICVISTA
from perceptune.core.benchmarks.mathverse import MATHVERSE
from perceptune.core.benchmarks.mathvision import MATHVISION
from perceptune.core.benchmarks.mathvista import MATHVISTA
from perceptune.core.benchmarks.mmhal import MMHAL
from perceptune.core.benchmarks.mmmu_pro import MMMU_PRO
from perceptune.core.benchmarks.page_ocr import PAGE_OCR
from perceptune.core.benchmarks.papo_eval import PAPO_EVAL
from perceptune.core.benchmarks.pope import POPE
from perceptune.core.benchmarks.refcoco import REFCOCO
from perceptune.core.benchmarks.textvqa import TEXTVQA
from perceptune.core.benchmarks.we_math import WE_MATH

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        AMBER,
        AMBER_DISCRIMINATIVE,
        AMBER_GENERATIVE,
        DYNAMATH,
        GEOMETRY3K_CPPO,
        GEOMETRY3K_PAPO,
        HALLUSIONBENCH,
        LLAVA_BENCH,
        LOGICVISTA,
        MATHVERSE,
        MATHVISION,
        MATHVISTA,
        MMHAL,
        MMMU_PRO,
        PAGE_OCR,
        PAPO_EVAL,
        POPE,
        REFCOCO,
        TEXTVQA,
        WE_MATH,
    )
}
