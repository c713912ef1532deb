"""Captions are read back by the parser below, which shares no line with the templates."""

import re
from itertools import chain

import pytest
import torch

from diffusion.data import shape_captions, shape_scenes
from diffusion.data.shape_captions import FRAMES, UNSEEN_FRAMES, all_captions
from diffusion.data.shape_renderer import RGB, render
from diffusion.data.shape_scenes import COLOURS, HELDOUT, LAYOUTS, SHAPES, composition_index, draw_scenes
from diffusion.data.shapes import Shapes
from diffusion.rng import generator

SMALL = Shapes(train=600, test=200)
EVERYTHING = range(len(COLOURS) * len(SHAPES))
OBJECT = re.compile(rf"(?:(small|large) )?({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})")


def read(caption: str) -> list[int]:
    """The labels that a caption states."""
    objects = [(COLOURS.index(c), SHAPES.index(s)) for _, c, s in OBJECT.findall(caption)]
    if len(objects) == 1:
        return [LAYOUTS.index("single"), *objects[0], -1, -1]
    first, second = objects
    vertical = re.search(r"\b(above|below)\b", caption)
    relation = re.search(r"\b(above|below|left|right)\b", caption)[1]
    # "a below b" and "a with b above it" put b first
    second_is_first = (relation in ("below", "right")) != bool(re.search(r"\bwith\b", caption))
    if second_is_first:
        first, second = second, first
    return [LAYOUTS.index("vertical" if vertical else "horizontal"), *first, *second]


def compositions(labels) -> set[int]:
    pairs = torch.cat([labels[:, 1:3], labels[:, 3:5]])
    return set((pairs[:, 0] * len(SHAPES) + pairs[:, 1])[pairs[:, 0] >= 0].tolist())


def held_out() -> set[int]:
    return {composition_index(name) for name in HELDOUT}


@pytest.fixture(scope="module")
def scenes():
    return draw_scenes(400, 0.5, EVERYTHING, EVERYTHING, generator(0, 0, "test"))


def test_the_parser_reads_every_relation():
    red_ring, blue_cross = [0, 4], [2, 3]
    assert read("a red ring") == [0, *red_ring, -1, -1]
    for caption in ("a red ring above a blue cross", "a blue cross with a small red ring above it"):
        assert read(caption) == [1, *red_ring, *blue_cross]
    for caption in ("a red ring to the right of a blue cross", "a red ring with a blue cross to its left"):
        assert read(caption) == [2, *blue_cross, *red_ring]


@pytest.mark.parametrize("name", ["train", "test"])
def test_a_split_is_the_same_twice(name):
    a, b = (Shapes(train=300, test=300).split(name) for _ in range(2))
    assert a.captions == b.captions
    for field in ("images", "caption_ids", "content", "labels"):
        assert torch.equal(getattr(a, field), getattr(b, field))


def test_splits_and_seeds_are_different_streams():
    base = Shapes(train=100, test=100)
    others = [base.split("test"), base.judge_split("train"), base.judge_split("test")]
    others.append(Shapes(train=100, test=100, seed=1).split("train"))
    pictures = [{image.numpy().tobytes() for image in data.images} for data in [base.split("train"), *others]]
    assert len(set.union(*pictures)) == sum(map(len, pictures)) == 500


@pytest.mark.parametrize("name", ["train", "test"])
def test_held_out_compositions_never_occur(name):
    data = Shapes(train=4000, test=4000).split(name)
    assert compositions(data.labels) == set(EVERYTHING) - held_out()
    assert not any(f"{held}" in caption for held in HELDOUT for caption in data.captions)


def test_every_colour_and_shape_is_seen_in_several_compositions():
    assert len(HELDOUT) == 8
    seen = [divmod(c, len(SHAPES)) for c in set(EVERYTHING) - held_out()]
    for colour in range(len(COLOURS)):
        assert sum(c == colour for c, _ in seen) == 5
    for shape in range(len(SHAPES)):
        assert sum(s == shape for _, s in seen) >= 6


def test_the_judge_sees_all_compositions():
    assert compositions(Shapes(train=4000, test=2).judge_split("train").labels) == set(EVERYTHING)


@pytest.mark.parametrize("pairs", [0.0, 0.25, 1.0])
def test_the_share_of_pairs_is_exact(pairs):
    layout = Shapes(train=200, test=2, pairs=pairs).split("train").labels[:, 0]
    assert (layout > 0).sum() == 200 * pairs


@pytest.mark.parametrize("frames", [FRAMES, UNSEEN_FRAMES])
def test_every_caption_states_the_labels(scenes, frames):
    for captions, label in zip(all_captions(scenes, frames), scenes.labels().tolist()):
        for caption in captions:
            assert read(caption) == label, caption


def test_captions_mention_sizes_positions_and_backgrounds_together(scenes):
    said = scenes.described()
    places = [words for place in shape_captions.PLACES for words in place]
    for i, captions in enumerate(all_captions(scenes)):
        for caption in captions:
            sizes = [s for s, _, _ in OBJECT.findall(caption) if s]
            assert len(sizes) == (said.size[i] >= 0).sum()
            assert any(place in caption for place in places) == bool(said.position[i] >= 0)
            assert ("background" in caption) == bool(said.background[i] >= 0)


def test_captions_belong_to_one_content_and_contents_to_one_set_of_captions():
    scenes = draw_scenes(3000, 0.5, EVERYTHING, EVERYTHING, generator(1, 0, "test"))
    words_of, content_of = {}, {}
    for captions, content in zip(all_captions(scenes, FRAMES + UNSEEN_FRAMES), scenes.content().tolist()):
        assert len(set(captions)) == len(captions)
        assert words_of.setdefault(content, captions) == captions
        for caption in captions:
            assert content_of.setdefault(caption, content) == content
    assert len(words_of) > 1000


def test_a_picture_has_different_wordings_of_one_content():
    data = SMALL.split("train")
    assert (data.caption_ids[:, 0] != data.caption_ids[:, 1]).all()
    for label, ids in zip(data.labels.tolist(), data.caption_ids.tolist()):
        assert [read(data.captions[i]) for i in ids] == [label, label]


def test_articles_are_right(scenes):
    for captions in all_captions(scenes):
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", " ".join(captions))


def test_captions_fit_into_a_short_context(scenes):
    captions = chain.from_iterable(all_captions(scenes, FRAMES + UNSEEN_FRAMES))
    longest = max(len(re.findall(r"\w+|,", caption)) for caption in captions)
    assert longest + 2 <= 24  # with start and end


def test_unseen_templates_are_new_sentences_of_known_words():
    sets = Shapes(train=4000, test=400).retrieval()
    known = " ".join(Shapes(train=4000, test=2).split("train").captions)
    assert torch.equal(sets["seen"].images, sets["unseen_templates"].images)
    assert not set(sets["seen"].captions) & set(sets["unseen_templates"].captions)
    words = set(re.findall(r"\w+", " ".join(sets["unseen_templates"].captions)))
    assert words <= set(re.findall(r"\w+", known))


def test_retrieval_heldout_has_a_held_out_composition_in_each_picture():
    data = SMALL.retrieval()["heldout"]
    assert len(data) == 200
    for label in data.labels:
        assert compositions(label[None]) & held_out()


@pytest.mark.parametrize("group", SMALL.prompt_groups)
def test_prompts_ask_for_what_they_say(group):
    prompts = SMALL.prompts(group, 96, seed=3)
    assert len(prompts) == 96
    for caption, label in zip(prompts.captions, prompts.labels):
        assert read(caption) == label.tolist()
        assert (label[0] > 0) == group.endswith("_pairs")
        assert bool(compositions(label[None]) & held_out()) == group.startswith("heldout")


def test_prompts_are_balanced_over_compositions_and_follow_the_seed():
    a, b, c = (SMALL.prompts("heldout", 80, seed) for seed in (0, 0, 1))
    assert a.captions == b.captions != c.captions
    assert sorted((a.labels[:, 1] * len(SHAPES) + a.labels[:, 2]).tolist()) == sorted(list(held_out()) * 10)


def test_example_prompts_say_what_captions_say():
    scenes = draw_scenes(20_000, 0.0, EVERYTHING, EVERYTHING, generator(0, 0, "grammar"))
    grammar = set(chain.from_iterable(all_captions(scenes)))
    assert 8 <= len(Shapes.example_prompts) <= 16
    for prompt in Shapes.example_prompts:
        if read(prompt)[0] == 0:
            assert prompt in grammar


@pytest.mark.parametrize("image_size", [32, 128])
def test_shapes_have_the_colour_size_and_place_that_is_written(image_size):
    scenes = draw_scenes(400, 0.5, EVERYTHING, EVERYTHING, generator(5, 0, "scenes"))
    images = render(scenes, image_size, generator(5, 0, "pixels")).float()
    palette = torch.tensor(RGB).float()
    saturated = (images.amax(1) - images.amin(1) > 60) | (images.amin(1) > 200)
    unit = image_size / 32
    axis = (torch.arange(image_size) + 0.5) / unit
    for image, mask, scene in zip(images, saturated, range(len(scenes))):
        layout, colours = scenes.layout[scene], scenes.colour[scene]
        nearest = (image.permute(1, 2, 0)[mask][:, None] - palette).norm(dim=2).argmin(1)
        objects = range(1 if layout == 0 else 2)
        assert set(colours[: len(objects)].tolist()) <= set(nearest.tolist())
        spots = [mask]
        if layout > 0:  # cut where the shapes leave a line free
            along = mask.any(1 if layout == 1 else 0)
            start = int(along.long().argmax())
            gap = start + int((~along[start:]).long().argmax())
            first = torch.zeros_like(mask)
            (first if layout == 1 else first.T)[:gap] = True
            spots = [mask & first, mask & ~first]
        for i, spot in zip(objects, spots):
            mean = image.permute(1, 2, 0)[spot].median(dim=0).values
            assert int((mean - palette).norm(dim=1).argmin()) == colours[i]
            height, width = (int(spot.any(d).sum()) / unit for d in (1, 0))
            if image_size > 32:  # else faint edges and tips, which the mask misses, count too much
                assert (max(height, width) > 11.8) == bool(scenes.size[scene, i] == 1)
                assert min(height, width) > 8.4
        if layout == 0:
            y, x = (axis[mask.any(d)].aminmax() for d in (1, 0))
            y, x = sum(y) / 2, sum(x) / 2
            where = shape_scenes.POSITIONS[scenes.position[scene]]
            assert (x < 12.5, x > 19.5) == ("left" in where, "right" in where), where
            assert (y < 12.5, y > 19.5) == ("top" in where, "bottom" in where), where


def test_the_fingerprint_follows_every_argument():
    base = {"train": 10, "test": 10}
    changes = [
        {}, {"train": 11}, {"test": 11}, {"seed": 1}, {"image_size": 48},
        {"heldout": ["red circle"]}, {"pairs": 0.4}, {"wordings": 1},
    ]  # fmt: skip
    assert len({Shapes(**(base | change)).fingerprint() for change in changes}) == len(changes)
    assert Shapes(**base).fingerprint() == Shapes(**base, heldout=list(reversed(HELDOUT))).fingerprint()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"heldout": ["pink circle"]}, "'pink circle' is no composition"),
        ({"heldout": [f"{c} {s}" for c in COLOURS for s in SHAPES]}, "at least 2 compositions"),
        ({"pairs": 1.5}, "between 0 and 1"),
        ({"wordings": 0}, "wordings"),
        ({"train": 0}, "at least 1 picture"),
        ({"image_size": 8}, "image_size"),
    ],
)
def test_mistaken_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Shapes(**arguments)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="train, test"):
        SMALL.split("validation")
    with pytest.raises(ValueError, match="seen, seen_pairs, heldout, heldout_pairs"):
        SMALL.prompts("unseen", 4, 0)


def test_without_held_out_compositions_nothing_is_asked_about_them():
    data = Shapes(train=4, test=4, heldout=())
    assert data.prompt_groups == ("seen", "seen_pairs")
    assert set(data.retrieval()) == {"seen", "unseen_templates"}
