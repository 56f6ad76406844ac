"""Write the package's own splits of a dataset, so that rivals learn from exactly its rows without having it.

    python -m evals.bench.splits --data DIR/banking77 --out splits/banking77 --rows 1000 --seeds 1 2 3

Makes OUT/SEED/train.jsonl and validation.jsonl, as `pgkd train` draws and splits them with that seed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

from pgkd_agent.data import prepare_task, read_examples, read_taxonomy
from pgkd_agent.files import write_whole
from pgkd_agent.types import Example


def freeze_splits(data: Path, out: Path, rows: int, seeds: Iterable[int]) -> None:
    """
    Args:
        rows: To learn from and for validation together, four to one.
    """
    pool, taxonomy = read_examples(data / "train.jsonl"), read_taxonomy(data / "labels.json")
    for seed in seeds:
        task = prepare_task(pool, taxonomy=taxonomy, rows=rows, seed=seed)
        folder = out / str(seed)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "train.jsonl", _lines(task.train))
        write_whole(folder / "validation.jsonl", _lines(task.validation))


def _lines(rows: Iterable[Example]) -> str:
    return "".join(json.dumps({"text": row.text, "label": row.label}, ensure_ascii=False) + "\n" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.jsonl and labels.json")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    options = parser.parse_args()
    freeze_splits(options.data, options.out, options.rows, options.seeds)


if __name__ == "__main__":
    main()
