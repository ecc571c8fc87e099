"""The description of the API: what clients are generated from changes on purpose only."""

from __future__ import annotations

import json

from facenet.service.app import describe
from tests.helpers import ROOT

SNAPSHOT = ROOT / "docs" / "openapi.json"


def test_the_description_is_the_committed_one() -> None:
    told = json.dumps(describe(None).openapi(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    assert told == SNAPSHOT.read_text(), "write it with python -m facenet.service.app > docs/openapi.json"


def test_every_route_says_what_it_answers_and_asks_for_a_key() -> None:
    schema = json.loads(SNAPSHOT.read_text())
    assert schema["security"] == [{"key": []}]
    for path, methods in schema["paths"].items():
        for method, about in methods.items():
            assert about["description"], f"{method} {path}"
            assert {"422", "429", "503"} <= set(about["responses"]), f"{method} {path}"
