"""What the documents say of the product is true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from engine.config import RunConfig
from engine.model_sections import MODEL_KINDS

ROOT = Path(__file__).parents[1]


def keys_of(model: Any) -> set[str]:
    """Every key of the run file, sections included, by its own name."""
    keys = set()
    for name, field in model.model_fields.items():
        if field.exclude:
            continue
        keys.add(field.alias or name)
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            for section in (part, *getattr(part, "__args__", ())):
                if hasattr(section, "model_fields"):
                    keys |= keys_of(section)
    return keys


def test_the_run_file_page_names_every_key() -> None:
    text = (ROOT / "docs" / "run-file.md").read_text()
    named = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`([^`]+)`", text))))
    assert keys_of(RunConfig) <= named


def test_the_models_page_names_every_kind_and_key() -> None:
    text = (ROOT / "docs" / "models.md").read_text()
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    named = set(re.findall(r"[a-z_0-9]+", " ".join(re.findall(r"`([^`]+)`", text))))
    keys = {key for section in MODEL_KINDS.values() for key in section.model_fields}
    assert keys | MODEL_KINDS.keys() <= named


def test_links_between_documents_lead_somewhere() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
