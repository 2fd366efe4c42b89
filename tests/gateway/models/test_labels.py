"""Label maps: what is read from each format, and what an operator is told of a mistake."""

import json
from pathlib import Path

import pytest

from gateway.models.labels import load_labels


def write(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def test_coco_has_its_80_classes_on_their_ids_with_gaps():
    """The built-in map follows COCO's annotation ids, not the numbers 1 to 80."""
    labels = load_labels("coco")
    assert len(labels) == 80
    assert len(set(labels.values())) == 80
    gaps = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
    assert set(labels) == set(range(1, 91)) - gaps
    known = {1: "person", 13: "stop sign", 18: "dog", 44: "bottle", 77: "cell phone"}
    assert known.items() <= labels.items()
    assert labels[90] == "toothbrush"


def test_labels_cannot_be_changed():
    """One map is shared by all requests, so it is read-only."""
    with pytest.raises(TypeError):
        load_labels("coco")[1] = "somebody"  # type: ignore[index]  # what is tested


@pytest.mark.parametrize(
    ("content", "labels"),
    [
        ('item { id: 1 name: "person" }', {1: "person"}),
        ("item {\n  name: 'person'\n  id: 1\n}\n", {1: "person"}),
        ('item: { id: 1, name: "a"; }; item < id: 2 name: "b" >', {1: "a", 2: "b"}),
        ('item { name: "/m/01g317" id: 1 display_name: "person" }', {1: "person"}),
        ('item { display_name: "" name: "person" id: 1 }', {1: "person"}),
        ("item{id:1 name:'it\\'s a \"cat\"'}item{id:2 name:\"\"'b'}", {1: 'it\'s a "cat"', 2: "b"}),
        ('# item { id: 9 }\nitem { id: 1 # the first\n name: "#1" }', {1: "#1"}),
        (r'item { id: 1 name: "\303\251t\xc3\xa9 \\ \t" }', {1: "été \\ \t"}),
        ('item { id: 1 name: "café 猫" }', {1: "café 猫"}),
        ('\ufeffitem { id: 1 name: "with a mark" }\r\n', {1: "with a mark"}),
        (
            'item { id: 1 name: "a" keypoints { id: 7 label: "b" } frequency: RARE lvis { } }',
            {1: "a"},
        ),
        (
            'version: -1.5e3 item { id: 1 name: "a" ancestor_ids: ["x", 2] } other { id: 3 }',
            {1: "a"},
        ),
        ('item { id: 0 name: "background" } item { id: 90 name: "z" }', {0: "background", 90: "z"}),
    ],
)
def test_pbtxt_is_read_as_protobuf_reads_it(tmp_path: Path, content: str, labels: dict[int, str]):
    """Quotes, escapes, comments, separators and unknown fields are those of the text format."""
    assert load_labels(write(tmp_path, "map.pbtxt", content)) == labels


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('item { id: 1 name: "a" }\nitem { id: 1 name: "b" }', "line 2: two labels for id 1"),
        ('item {\n name: "a" }', "line 1: 'a' has no class id"),
        ('item { id: one name: "a" }', "line 1: 'a' has no class id, or one .* 'one'"),
        ('item { id: -1 name: "a" }', "line 1: 'a' has no class id, or one .* '-1'"),
        ("\n\nitem { id: 1 }", "line 3: this item has neither a display_name nor a name"),
        ('item { id: 1 name: "" }', "line 1: this item has neither"),
        ("item { id: 1 name { id: 2 } }", "line 1: this item has neither"),
        ("item: 1", "line 1: item is not followed by braces"),
        ('item { id: 1 name: "a"\n', "line 2: unexpected 'the end'"),
        ("item { id: 1\nname:", "line 2: unexpected 'the end'"),
        ("item { id: [1", "line 1: unexpected 'the end'"),
        ("item { id: 1\n name: 'a\n' }", "line 2: unexpected \"'a"),
        (r'item { id: 1 name: "\q" }', "line 1: unexpected"),
        (r'item { id: 1 name: "\377" }', "line 1: the string is not UTF-8"),
        ("}", "line 1: unexpected '}'"),
        ("item { id: 1 name: } }", "line 1: unexpected '}'"),
        ('item { id: 1 name: "a" >', "line 1: unexpected '>'"),
        ("item { id: 1 name: 'a' } $", "line 1: unexpected '\\$'"),
        ("", "it holds no labels"),
        ("# nothing", "it holds no labels"),
    ],
)
def test_mistake_in_pbtxt_is_named_with_its_line(tmp_path: Path, content: str, reason: str):
    """An operator reads the file, the line and the reason."""
    source = write(tmp_path, "map.pbtxt", content)
    with pytest.raises(ValueError, match=reason) as error:
        load_labels(source)
    assert source in str(error.value)


def test_text_numbers_its_lines_from_one(tmp_path: Path):
    """Line k belongs to id k, and an empty line leaves its id without a label."""
    source = write(
        tmp_path, "labels.TXT", "\ufeffperson\r\n  traffic light \r\n\r\n4: \u2028dog\n\n"
    )
    assert load_labels(source) == {1: "person", 2: "traffic light", 4: "4: \u2028dog"}


@pytest.mark.parametrize("content", [{"1": "person", "90": "café"}, {"90": "café", "1": "person"}])
def test_json_object_maps_ids_to_labels(tmp_path: Path, content: dict[str, str]):
    """The keys are the class ids, in any order."""
    source = write(tmp_path, "labels.json", json.dumps(content, ensure_ascii=False))
    assert load_labels(source) == {1: "person", 90: "café"}


def test_json_list_counts_from_one(tmp_path: Path):
    """A list means what the same labels mean as lines of text."""
    source = write(tmp_path, "labels.json", '["person", "bicycle"]')
    assert load_labels(source) == {1: "person", 2: "bicycle"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"1": "a",\n}', "line 2: "),
        ('{"one": "a"}', "'a' has no class id, or one that is not a number: 'one'"),
        ('{"-1": "a"}', "'-1'"),
        ('{"1": "a", "1": "b"}', "two labels for id 1: 'a' and 'b'"),
        ('{"1": "a", "01": "b"}', "two labels for id 1: 'a' and 'b'"),
        ('{"1": 5}', "the label of id 1 is not a string, or is empty"),
        ('{"1": {"name": "a"}}', "the label of id 1 is not a string, or is empty"),
        ('["a", ""]', "the label of id 2 is not a string, or is empty"),
        ('"person"', "neither an object nor a list"),
        ("", "line 1: "),
        ("{}", "it holds no labels"),
    ],
)
def test_mistake_in_json_is_named(tmp_path: Path, content: str, reason: str):
    """An operator reads the file and the reason, with the line where JSON itself is broken."""
    source = write(tmp_path, "labels.json", content)
    with pytest.raises(ValueError, match=reason) as error:
        load_labels(source)
    assert source in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("labels.csv", "1,a", "neither coco nor a .pbtxt, .txt or .json file"),
        ("COCO", "a", "neither coco nor a .pbtxt, .txt or .json file"),
        ("labels.txt", b"caf\xe9", "byte 3 is not UTF-8"),
        ("labels.txt", " \n\n", "it holds no labels"),
        ("labels.txt", None, "No such file or directory"),
    ],
)
def test_unusable_file_is_named_with_the_reason(
    tmp_path: Path, name: str, content: str | bytes | None, reason: str
):
    """A wrong suffix, encoding or path is a ValueError that names the source."""
    source = str(tmp_path / name) if content is None else write(tmp_path, name, content)
    with pytest.raises(ValueError, match=reason) as error:
        load_labels(source)
    assert source in str(error.value)


def test_folder_is_not_a_label_map(tmp_path: Path):
    """What the operating system says of a path is passed on."""
    (tmp_path / "labels.txt").mkdir()
    with pytest.raises(ValueError, match="Is a directory"):
        load_labels(str(tmp_path / "labels.txt"))
