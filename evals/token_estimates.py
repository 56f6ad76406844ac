"""How close `estimate_tokens` is to the tokenizers of GGUF models, on the prompts of this project.

    python evals/token_estimates.py DATA_DIR MODEL.gguf [MODEL.gguf ...]

DATA_DIR holds a folder per dataset, named as in `pgkd datasets`; what is missing is left out.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path

from pgkd_agent.config import build_config
from pgkd_agent.data import PRESETS
from pgkd_agent.pipeline import load_task
from pgkd_agent.teacher.preview import preview
from pgkd_agent.teacher.prompting.tokens import estimate_tokens
from pgkd_agent.teacher.providers.local import serve


def prompts(data: Path) -> dict[tuple[str, str], str]:
    """By dataset and variant, the first prompt of a run."""
    found = {}
    for name in PRESETS:
        if not (data / name).is_dir():
            continue
        for variant in ("paper", "per_class"):
            flags = {"data.dataset": name, "data.data_dir": data / name, "data.rows": 1000, "teacher.prompt": variant}
            config = build_config(flags={"seed": 1, **flags})
            messages = preview(load_task(config=config), config).prompts[0]
            found[name, variant] = "\n".join(message.content for message in messages)
    return found


def true_tokens(server: str, text: str) -> int:
    address = server.removesuffix("/v1") + "/tokenize"
    body = json.dumps({"content": text}).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return len(json.load(answer)["tokens"])


def main(data: Path, models: list[Path]) -> None:
    texts = prompts(data)
    sys.stdout.write("| model | dataset | prompt | tokens | estimate / tokens |\n| --- | --- | --- | --- | --- |\n")
    for model in models:
        with serve(model) as server:
            for (dataset, variant), text in texts.items():
                tokens = true_tokens(server, text)
                ratio = estimate_tokens(text) / tokens
                sys.stdout.write(f"| {model.stem} | {dataset} | {variant} | {tokens} | {ratio:.2f} |\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
