"""Points of a study and what they are called."""

import pytest

from convmixer_jax.studying.study import Range, Study, decoded, encode, known_points, labels, point_name, rounded


def study(**more) -> Study:
    return Study(name="a", title="A", source="nobody", recipe="r.py", seeds=(0,), **more)


def test_a_grid_has_every_combination_and_the_points_beside_it():
    made = study(
        axes={"model.kernel_size": (3, 5), "model.dim": (8, 16)},
        points={"wide": {"model.dim": 512}},
        published={"kernel_size=3,dim=16": 0.5, "wide": 0.25},
    )
    assert [(point.name, point.published) for point in known_points(made)] == [
        ("kernel_size=3,dim=8", None),
        ("kernel_size=3,dim=16", 0.5),
        ("kernel_size=5,dim=8", None),
        ("kernel_size=5,dim=16", None),
        ("wide", 0.25),
    ]
    assert known_points(made)[1].parameters == {"model.kernel_size": 3, "model.dim": 16}
    assert made.fields == ["model.kernel_size", "model.dim"]


def test_a_search_knows_only_what_it_tries_first_and_names_it_by_its_place():
    made = study(axes={"model.dim": Range(8, 64)}, points={"first": {"model.dim": 8}}, sampler="tpe", trials=4)
    assert [point.name for point in known_points(made)] == ["dim=8"]
    assert (made.searches, study(axes={}).searches) == (True, False)


NAMES = {
    "dim=8": {"model.dim": 8},
    "schedule=cosine": {"schedule.name": "cosine"},
    "schedule=cosine,optimizer=adamw": {"schedule.name": "cosine", "optimizer.name": "adamw"},
    "learning_rate=1e-05": {"schedule.learning_rate": 0.00001},
    "order=crop+flip": {"augment.order": ("crop", "flip")},
    "order=none": {"augment.order": ()},
    "preset=none": {"model.preset": ""},
    "dataset=folder__my_photos": {"dataset": "folder:/my photos"},
    "augment.cutout.probability=0.5,mixing.probability=1": {"augment.cutout.probability": 0.5, "mixing.probability": 1},
}


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_a_point_is_one_of_a_folder(name):
    assert point_name(NAMES[name]) == name


def test_labels_are_short_where_that_is_clear():
    assert labels(["a.b.size", "a.c.size", "d.name"]) == {"a.b.size": "a.b.size", "a.c.size": "a.c.size", "d.name": "d"}


@pytest.mark.parametrize("axis, inside, outside", [
    (Range(8, 64, step=8), [8, 16, 64], [0, 12, 72, 8.0, True]),
    (Range(0.1, 0.5, step=0.1), [0.1, 0.3, 0.5], [0.35, 0.6]),
    (Range(1e-3, 0.1, log=True), [1e-3, 0.05, 0.1], [0.0, 0.2, "0.05"]),
])  # fmt: skip
def test_what_lies_in_a_range(axis, inside, outside):
    assert [value in axis for value in inside + outside] == [True] * len(inside) + [False] * len(outside)


def test_values_are_kept_as_optuna_can():
    assert [encode(value) for value in (3, 0.5, True, "a", ("a", "b"))] == [3, 0.5, True, "a", '["a", "b"]']
    assert decoded({"augment.order": ["a", "b"], "model.dim": 8}) == {"augment.order": ("a", "b"), "model.dim": 8}
    assert (rounded(0.0123456), rounded(7), rounded("a")) == (0.0123, 7, "a")
