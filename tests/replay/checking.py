"""An independent check of a placements file: it knows the files alone, and nothing of the code that wrote it."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from pathlib import Path

HEADING = ["seed", "arrival", "pod", "node", "gpus", "reason"]


def problems_of(placements: Path, *, nodes: Path, pods: Path) -> list[str]:
    """Every rule that a line breaks, as a sentence."""
    sizes = {row["sn"]: row for row in _rows(nodes)}
    asked = {row["name"]: row for row in _rows(pods)}
    cpu: Counter[tuple[str, str]] = Counter()
    memory: Counter[tuple[str, str]] = Counter()
    parts: Counter[tuple[str, str, int]] = Counter()
    arrivals: defaultdict[str, list[int]] = defaultdict(list)
    found = []
    with placements.open(newline="") as lines:
        reader = csv.DictReader(lines)
        if reader.fieldnames != HEADING:
            found.append(f"heading {reader.fieldnames}")
        for row in reader:
            what, seed, pod = f"seed {row['seed']} arrival {row['arrival']}", row["seed"], asked[row["pod"]]
            arrivals[seed].append(int(row["arrival"]))
            if not row["node"]:
                if row["gpus"] or not row["reason"]:
                    found.append(f"{what}: has no node, and GPUs {row['gpus']!r} for the reason {row['reason']!r}")
                continue
            if row["reason"]:
                found.append(f"{what}: is placed for the reason {row['reason']!r}")
            node = sizes[row["node"]]
            gpus = [int(gpu) for gpu in row["gpus"].split("+") if gpu]
            wants = int(pod["num_gpu"])
            if len(set(gpus)) != len(gpus) or len(gpus) != wants or any(gpu >= int(node["gpu"]) for gpu in gpus):
                found.append(f"{what}: asks for {wants} GPUs and has {gpus} of {node['gpu']}")
            models = [model for model in pod["gpu_spec"].split("|") if model]
            if wants and models and node["model"] not in models:
                found.append(f"{what}: accepts {models} and has {node['model']}")
            cpu[seed, row["node"]] += int(pod["cpu_milli"])
            memory[seed, row["node"]] += int(pod["memory_mib"])
            for gpu in gpus:
                parts[seed, row["node"], gpu] += 1000 if wants > 1 else int(pod["gpu_milli"])
    found += [f"{where}: {used} of a GPU's 1000" for where, used in parts.items() if used > 1000]
    found += [f"{where}: CPU {used}" for where, used in cpu.items() if used > int(sizes[where[1]]["cpu_milli"])]
    found += [f"{where}: memory {used}" for where, used in memory.items() if used > int(sizes[where[1]]["memory_mib"])]
    found += [f"seed {seed}: arrivals" for seed, all_ in arrivals.items() if all_ != list(range(len(all_)))]
    return found


def ratio_of(placements: Path, *, nodes: Path, pods: Path, seed: int) -> float:
    """The allocation ratio of a seed, in %, from the files."""
    asked = {row["name"]: row for row in _rows(pods)}
    placed = 0
    for row in _rows(placements):
        if row["seed"] == str(seed) and row["gpus"]:
            count = row["gpus"].count("+") + 1
            placed += 1000 * count if count > 1 else int(asked[row["pod"]]["gpu_milli"])
    return 100 * placed / sum(1000 * int(row["gpu"]) for row in _rows(nodes))


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))
