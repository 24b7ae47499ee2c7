"""Peak memory of every job on a Parquet file with images inside: import, sample 64 questions, score,
select, compute log-probs and train.

    python benchmarks/embedded_images.py                # 40,000 rows with 150 KB each: 6 GB
    python benchmarks/embedded_images.py --rows 2000    # for comparison

Runs Snakemake in a temporary folder (`--folder` to choose where) with the demo's model. Prints, for
every kind of job, the highest resident memory of one of its processes, and that of the sum of its
processes (proportional set size). Nothing is asserted.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from perceptune.core.data.shapes import render, scene_and_row

ROOT = Path(__file__).parents[1]
GROUP = 100
"""Rows per row group of the source, as the Hugging Face hub writes image datasets."""
SCENES = 500
"""Distinct pictures. Every file is distinct and padded to its size after the end of the picture."""
INTERVAL = 0.1
"""Seconds between two looks at the processes."""


def write(file: Path, rows: int, size: int) -> None:
    """Write the dataset."""
    random = np.random.default_rng(0)
    pictures = []
    for number in range(min(SCENES, rows)):
        scene, row = scene_and_row(0, "train", number, "grounding")
        buffer = BytesIO()
        render(scene).save(buffer, "PNG")
        pictures.append((buffer.getvalue(), row))
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([
        ("image", image), ("question", pa.string()), ("box", pa.list_(pa.float64())), ("task", pa.string()), ("split", pa.string()),
    ])  # fmt: skip
    with pq.ParquetWriter(file, schema, compression="none") as writer:
        for start in range(0, rows, GROUP):
            group = []
            for number in range(start, min(start + GROUP, rows)):
                data, row = pictures[number % len(pictures)]
                group.append({
                    "image": {"bytes": data + random.bytes(size - len(data)), "path": None}, "question": row.question,
                    "box": list(row.box or ()), "task": row.task, "split": "train",
                })  # fmt: skip
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def configure(folder: Path, questions: int) -> None:
    """Write the config: the demo's, with these data and without benchmarks."""
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    config["datasets"] = {"embedded": {"kind": "parquet", "path": "data.parquet"}}
    config["samplings"]["n20"] |= {"n": 8, "limit": questions}
    config["selections"]["ranked"] = {"list_size": 8, "min_margin": 0.05}
    config["experiments"] = {"dpo": {**config["experiments"]["dpo"], "dataset": "embedded", "benchmarks": []}}
    config["trainings"] = {"dpo": config["trainings"]["dpo"]}
    config["benchmarks"] = {}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "resources").symlink_to(ROOT / "resources")


def watch(process: subprocess.Popen[bytes]) -> dict[str, tuple[float, float]]:
    """By kind of job: the highest peak of one process, and the highest sum of its processes, in MB."""
    peaks: dict[str, tuple[float, float]] = {}
    while process.poll() is None:
        time.sleep(INTERVAL)
        sums: dict[str, float] = {}
        try:
            children = psutil.Process(process.pid).children(recursive=True)
        except psutil.Error:
            break
        for one in [psutil.Process(process.pid), *children] if process.poll() is None else []:
            try:
                name = kind(one)
                status = Path(f"/proc/{one.pid}/status").read_text()
                peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
                sums[name] = sums.get(name, 0) + one.memory_full_info().pss / 2**20
            except (psutil.Error, OSError, IndexError):
                continue
            highest, total = peaks.get(name, (0.0, 0.0))
            peaks[name] = max(highest, peak), total
        for name, total in sums.items():
            if name in peaks:
                peaks[name] = peaks[name][0], max(peaks[name][1], total)
    return peaks


def kind(process: psutil.Process) -> str:
    """The rule of a job's process or of its child; `snakemake` for the rest."""
    for one in [process, *process.parents()]:
        words = " ".join(one.cmdline()).split()
        if words[:1] == ["perceptune"]:
            return words[1]
    return "snakemake"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=40000)
    parser.add_argument("--size", type=int, default=150_000, help="bytes per image")
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--folder", type=Path, help="instead of a temporary folder, which needs 2.5 times the data")
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=settings.folder) as temporary:
        folder = Path(temporary)
        write(folder / "data.parquet", settings.rows, settings.size)
        configure(folder, settings.questions)
        print(f"{settings.rows:,} rows, {(folder / 'data.parquet').stat().st_size / 2**30:.2f} GiB", flush=True)
        command = [
            "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder), "--configfile",
            str(folder / "config.yaml"), "--cores", "2", "--", "adapters",
        ]  # fmt: skip
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        since = time.perf_counter()
        with (folder / "snakemake.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
            peaks = watch(process)
        if process.wait():
            raise SystemExit((folder / "snakemake.log").read_text()[-3000:])
        print(f"{time.perf_counter() - since:.0f} s\n\n| job | one process, MB | all, MB |\n|---|---|---|")
        for name, (highest, total) in sorted(peaks.items(), key=lambda item: -item[1][0]):
            print(f"| {name} | {highest:,.0f} | {total:,.0f} |")


if __name__ == "__main__":
    main()
