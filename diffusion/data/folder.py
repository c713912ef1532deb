"""Your own pictures: the `imagefolder` layout of the datasets library.

    FOLDER/metadata.jsonl           {"file_name": "a/01.png", "text": "a caption"}, one line per picture
    FOLDER/a/01.png
or
    FOLDER/red_panda/01.png         one folder per class; captions come from templates

Either below FOLDER, or below FOLDER/train and FOLDER/test. Without a test folder one picture in twenty is
held out, chosen by a hash of its name. Every picture must have a row and every row a picture: nothing is left
out without a word.
"""

import dataclasses
import functools
import hashlib
import json
from collections import Counter
from pathlib import Path

import torch

from diffusion.data.captioned import CaptionedImages, DataUnavailable, Prompts, kept, one_of
from diffusion.data.class_captions import TEMPLATES, UNSEEN_TEMPLATES, class_images, class_prompts, fill
from diffusion.data.decode import DECODING, cached, crop_and_resize, decode
from diffusion.data.hashing import digest, files_digest
from diffusion.data.on_demand import OnDemand
from diffusion.rng import generator

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
METADATA = "metadata.jsonl"
TEST_SHARE = 0.05
RETRIEVAL_SIZE = 2000
EXAMPLES = 16


@dataclasses.dataclass(frozen=True)
class Listing:
    """What the folder holds, before any picture is opened.

    texts    captions; the names of classes, if there are classes
    """

    files: dict[str, list[Path]]
    texts: dict[str, list[str]]
    classes: tuple[str, ...]


class Folder:
    """A folder of one's own, in the layout above.

    source          the folder; pictures are centre-cropped and resized to image_size
    caption_column  the key of the caption in metadata.jsonl
    cache           a folder for the decoded pictures, or None
    memory_gib      decoded splits up to this size are kept in memory, larger ones are decoded on demand (workers=4)

    heads and prompt_groups depend on the files, which are listed when first asked for.
    """

    channels = 3

    def __init__(
        self,
        source: str,
        image_size: int,
        caption_column: str = "text",
        cache: str | None = None,
        memory_gib: float = 8.0,
    ):
        if image_size < 1:
            raise ValueError(f"image_size: at least 1, got {image_size}")
        self.source, self.cache, self.memory_gib = source, cache, memory_gib
        self.image_size, self.caption_column = image_size, caption_column

    @property
    def heads(self) -> dict[str, tuple[str, ...]]:
        return {"class": self._listing.classes} if self._listing.classes else {}

    @property
    def prompt_groups(self) -> tuple[str, ...]:
        return ("classes",) if self._listing.classes else ("captions",)

    @functools.cached_property
    def example_prompts(self) -> tuple[str, ...]:
        """The first classes, or captions of test pictures."""
        if self._listing.classes:
            return tuple(fill(TEMPLATES[0], name) for name in self._listing.classes[:EXAMPLES])
        return tuple(dict.fromkeys(self._listing.texts["test"]))[:EXAMPLES]

    def fingerprint(self) -> str:
        templates = [TEMPLATES, UNSEEN_TEMPLATES]
        return digest(["folder", self._content, DECODING, self.image_size, self.caption_column, templates])

    @kept
    def split(self, name: str) -> CaptionedImages:
        return self._captioned(name)

    def judge_split(self, name: str) -> CaptionedImages:
        return self.split(name)

    @property
    def mirror(self) -> bool:
        """Captions may tell left from right, classes do not."""
        return bool(self._listing.classes)

    def prompts(self, group: str, n: int, seed: int) -> Prompts:
        """Classes in equal numbers, or captions of test pictures (over and over where they are few)."""
        one_of("prompt group", group, self.prompt_groups)
        if self._listing.classes:
            return class_prompts(self._listing.classes, n, seed)
        texts = self._listing.texts["test"]
        order = torch.randperm(len(texts), generator=generator(seed, 0, "folder prompts")).tolist()
        captions = tuple(texts[order[i % len(order)]] for i in range(n))
        return Prompts(captions, torch.empty(n, 0, dtype=torch.int64))

    def retrieval(self) -> dict[str, CaptionedImages]:
        sets = {"seen": TEMPLATES}
        if self._listing.classes:
            sets["unseen_templates"] = UNSEEN_TEMPLATES
        return {name: self._captioned("test", t).pick(RETRIEVAL_SIZE, 0) for name, t in sets.items()}

    def _captioned(self, name: str, templates=TEMPLATES) -> CaptionedImages:
        files = self._listing.files[one_of("split", name, ("train", "test"))]
        prepare = crop_and_resize(self.image_size)
        if len(files) * 3 * self.image_size**2 > self.memory_gib * 2**30:
            images = OnDemand(files, prepare, self.image_size)
        else:
            images = cached(
                self.cache,
                f"folder-{name}-{self.image_size}-{DECODING}-{self._content}",
                lambda: decode([(str(file), file) for file in files], len(files), prepare),
            )
        texts, classes = self._listing.texts[name], self._listing.classes
        if classes:
            number = {name: i for i, name in enumerate(classes)}
            return class_images(images, torch.tensor([number[text] for text in texts]), classes, templates)
        # Content is numbered over both splits, so that equal captions agree between them.
        both = self._listing.texts["train"] + self._listing.texts["test"]
        table = {text: i for i, text in enumerate(dict.fromkeys(both))}
        content = torch.tensor([table[t] for t in texts])
        return CaptionedImages(
            images, tuple(table), content[:, None], content, torch.empty(len(texts), 0, dtype=torch.int64)
        )

    @functools.cached_property
    def _content(self) -> str:
        """Of the files' bytes and of which split they belong to."""
        root = Path(self.source).expanduser()
        cache = None if self.cache is None else Path(self.cache)
        files = {split: files_digest(root, files, cache) for split, files in self._listing.files.items()}
        return digest([files, self._listing.texts])

    @functools.cached_property
    def _listing(self) -> Listing:
        root = Path(self.source).expanduser()
        if not root.is_dir():
            raise DataUnavailable(
                f"the picture folder {self.source} does not exist (seen from {Path.cwd()}); "
                "set data.source=FOLDER. experiment=latent_shapes needs no data"
            )
        parts = {split: root / split for split in ("train", "test")}
        if not parts["train"].is_dir():
            parts = {"train": root}
        elif not parts["test"].is_dir():
            del parts["test"]
        has_captions = [(part / METADATA).is_file() for part in parts.values()]
        if any(has_captions) != all(has_captions):
            raise ValueError(f"{root}: {METADATA} in train or test only; either both have it or none")
        read = (
            functools.partial(_with_captions, column=self.caption_column)
            if all(has_captions)
            else _with_classes
        )
        rows = {split: read(part) for split, part in parts.items()}
        if "test" not in rows:
            rows["train"], rows["test"] = _hold_out(rows["train"], root)
        classes = ()
        if not all(has_captions):
            classes = tuple(sorted({text for part in rows.values() for _, text in part}))
        return Listing(
            files={split: [file for file, _ in part] for split, part in rows.items()},
            texts={split: [text for _, text in part] for split, part in rows.items()},
            classes=classes,
        )


def _with_captions(folder: Path, column: str) -> list[tuple[Path, str]]:
    """Pictures and captions in the order of metadata.jsonl."""
    rows = []
    for number, line in enumerate((folder / METADATA).read_text(encoding="utf-8-sig").split("\n"), start=1):
        where = f"{folder / METADATA}, line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: no JSON ({error.msg})") from error
        for key in ("file_name", column):
            if not isinstance(row, dict) or not isinstance(row.get(key), str) or not row[key].strip():
                raise ValueError(f"{where}: a text under {key!r} expected, got {line.strip()[:200]}")
        rows.append((folder / row["file_name"], row[column]))
    pictures, listed = set(_pictures(folder)), Counter(file for file, _ in rows)
    _complain(folder, "rows of metadata.jsonl without picture", set(listed) - pictures)
    _complain(folder, "pictures without row in metadata.jsonl", pictures - set(listed))
    repeated = [file for file, count in listed.items() if count > 1]
    _complain(folder, "pictures with several rows in metadata.jsonl", repeated)
    return rows


def _with_classes(folder: Path) -> list[tuple[Path, str]]:
    """Pictures and the name of their folder in words, in the order of the paths."""
    pictures = _pictures(folder)
    if not pictures:
        raise DataUnavailable(f"{folder} holds no pictures ({', '.join(SUFFIXES)})")
    depth = len(folder.parts) + 2
    elsewhere = [file for file in pictures if len(file.parts) != depth]
    _complain(folder, f"pictures outside folder/class/picture (and there is no {METADATA})", elsewhere)
    return [(file, file.parent.name.replace("_", " ")) for file in pictures]


def _pictures(folder: Path) -> list[Path]:
    return sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES
                  and not any(part.startswith(".") for part in f.relative_to(folder).parts))


def _hold_out(rows: list[tuple[Path, str]], root: Path) -> tuple[list, list]:
    """Train and test: the names of smallest hash are held out, whatever else there is."""
    if len(rows) < 2:
        raise ValueError(
            f"{root}: at least 2 pictures needed, one of them for the test split; found {len(rows)}"
        )
    hashes = [hashlib.sha256(file.relative_to(root).as_posix().encode()).digest() for file, _ in rows]
    bound = sorted(hashes)[max(1, round(TEST_SHARE * len(rows))) - 1]
    train = [row for row, h in zip(rows, hashes) if h > bound]
    return train, [row for row, h in zip(rows, hashes) if h <= bound]


def _complain(folder: Path, what: str, files) -> None:
    if files:
        shown = ", ".join(str(file.relative_to(folder)) for file in sorted(files)[:5])
        raise ValueError(f"{folder}: {len(files)} {what}: {shown}{', ...' if len(files) > 5 else ''}")
