"""Data sets of the hub, read through `datasets`: a stand-in for it says what it was asked for, because tests have no network."""

import sys
from types import SimpleNamespace

import pytest

from modernbert.data.documents import read_documents
from modernbert.errors import DataError, MissingExtraError


@pytest.fixture
def hub(monkeypatch):
    """Takes the place of `datasets`; `calls` keeps the arguments, `rows` is what a data set holds."""
    made = SimpleNamespace(calls=[], rows=[{"text": "one", "id": 1}, {"text": "two", "source": "own"}])

    def load_dataset(*names, **settings):
        made.calls.append((*names, settings))
        return iter(made.rows)

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return made


def test_a_data_set_is_streamed_between_files_in_the_order_given(hub, tmp_path):
    (tmp_path / "a.txt").write_text("file")
    read = list(read_documents(["hf:big/web:2024:valid", tmp_path / "a.txt", "hf:big/web"]))
    assert [document.text for document in read] == ["one", "two", "file", "one", "two"]
    assert [document.source for document in read[:2]] == ["web", "own"]
    streaming = {"streaming": True}
    assert hub.calls == [("big/web", "2024", streaming | {"split": "valid"}), ("big/web", None, streaming | {"split": "train"})]


def test_a_row_without_text_is_named(hub):
    hub.rows.append({"text": None})
    with pytest.raises(DataError, match=r"hf:big/web, row 3: wanted a row with a string 'text', got \{'text': None\}"):
        list(read_documents(["hf:big/web"]))


def test_what_the_hub_refuses_says_how_far_it_came_and_what_to_do(hub, monkeypatch):
    def broken():
        yield {"text": "one"}
        raise ConnectionError("Couldn't reach\nthe Hub")

    hub.rows = broken()
    with pytest.raises(
        DataError, match=r"cannot read hf:big/web after 1 rows \(Couldn't reach the Hub\); check its name and the con"
    ):
        list(read_documents(["hf:big/web"]))


@pytest.mark.parametrize("name", ["hf:", "hf:a/b:c:d:e"])
def test_a_name_of_another_form_is_refused(hub, name):
    with pytest.raises(DataError, match="names no data set; wanted hf:OWNER/NAME, hf:OWNER/NAME:CONFIG or"):
        list(read_documents([name]))


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"hf:big/web needs the package datasets: pip install 'modernbert\[datasets\]'"):
        list(read_documents(["hf:big/web"]))


def test_a_wrong_file_is_found_before_the_first_row_is_read(hub, tmp_path):
    with pytest.raises(DataError, match="no file or folder"):
        next(read_documents(["hf:big/web", tmp_path / "missing.jsonl"]))
    assert not hub.calls
