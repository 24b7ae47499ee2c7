"""The real NLTK and spaCy on small generated data: a tagger that knows ten words, vectors of four
words.

They are optional (`make language`); the data for AMBER's scores has to be downloaded and is not
used here.
"""

import json
from pathlib import Path

import pytest
from perceptune.core.answers.nouns import NLTK, MissingLanguageError, english

nltk = pytest.importorskip("nltk", reason="`make language` was not run")
spacy = pytest.importorskip("spacy", reason="`make language` was not run")

TAGS = {"Two": "CD", "dogs": "NNS", "run": "VBP", "on": "IN", "the": "DT", "grass": "NN", ".": ".", "Cars": "NNS"}
VECTORS = {"dog": [1.0, 0.0, 0.0], "puppy": [0.9, 0.1, 0.0], "car": [0.0, 1.0, 0.0], "cat": [0.61, 0.79, 0.0]}


@pytest.fixture
def resources(tmp_path: Path) -> Path:
    data = tmp_path / "nltk_data"
    for place in NLTK:
        (data / place).mkdir(parents=True)
    (data / "tokenizers/punkt_tab/english").mkdir()
    for name in ("collocations.tab", "sent_starters.txt", "abbrev_types.txt", "ortho_context.tab"):
        (data / "tokenizers/punkt_tab/english" / name).touch()
    tagger = data / "taggers/averaged_perceptron_tagger_eng"
    for name, value in {"weights": {}, "tagdict": TAGS, "classes": sorted(set(TAGS.values()))}.items():
        (tagger / f"averaged_perceptron_tagger_eng.{name}.json").write_text(json.dumps(value))
    wordnet = data / "corpora/wordnet"
    for name in (
        "index.sense",
        *(f"{kind}.{part}" for kind in ("index", "data") for part in ("noun", "verb", "adj", "adv")),
    ):
        (wordnet / name).touch()
    for part in ("noun", "verb", "adj", "adv"):
        (wordnet / f"{part}.exc").touch()
    (wordnet / "lexnames").write_text("00\tadj.all\t3\n01\tadj.pert\t3\n")
    (wordnet / "index.noun").write_text("dog n 1 0 1 0 00000001  \ngrass n 1 0 1 0 00000002  \n")
    model = spacy.blank("en")
    for word, vector in VECTORS.items():
        model.vocab.set_vector(word, __import__("numpy").array(vector, dtype="float32"))
    model.to_disk(tmp_path / "en_core_web_lg")
    return tmp_path


def test_nouns_and_near_words(resources: Path) -> None:
    """Known words become singular; capitalised words stay as they are, so "Cars" is not a "car"."""
    language = english(resources)
    assert language.nouns("Two dogs run on the grass. Cars") == ["dog", "grass", "Cars"]
    assert language.similar("dog", "puppy")  # cosine 0.994
    assert not language.similar("dog", "cat")  # 0.61
    assert not language.similar("cat", "car")  # 0.79
    assert language.similar("dog", "dog")
    assert not language.similar("dog", "zebra")  # no vector
    assert nltk.data.path == [str(resources / "nltk_data")]


def test_what_is_missing_is_named(resources: Path) -> None:
    (resources / "en_core_web_lg" / "config.cfg").unlink()
    with pytest.raises(
        MissingLanguageError, match=r"en_core_web_lg/config.cfg` does not exist, expected spaCy's model"
    ):
        english(resources)
