"""Ways to spoil a good adapter, by seed.

Where `sealed` is said, the manifest vouches for the spoiled files and LATEST.json for the manifest, so that
the deeper checks are what must refuse it. Nothing is a mutation that leaves a good adapter good.
"""

import hashlib
import json
import os
import pickle
import random
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from manifest_damage import (
    extra_field,
    file_outside,
    file_too_large,
    missing_field,
    other_config,
    spoil_manifest,
    strange_config,
    strange_json,
    wrong_field,
)
from safetensors.torch import load, save

from kronos_service.model.adapter.read import tensor_records
from kronos_shared.adapter_manifest import (
    ADAPTER_WEIGHTS,
    EVENT_WEIGHTS,
    FILES,
    LATEST,
    MANIFEST,
    VERSIONS,
    Latest,
    file_record,
    version_name,
)

WEIGHTS = (ADAPTER_WEIGHTS, EVENT_WEIGHTS)
Files = dict[str, bytes]
Tensors = dict[str, torch.Tensor]
Rng = random.Random


def seal(files: Files, *, tensors: bool = False) -> None:
    """Let the manifest vouch for the files as they are; for their tensors too, where asked."""
    manifest = json.loads(files[MANIFEST])
    manifest["files"] = {name: file_record(files[name]).model_dump() for name in FILES}
    if tensors:
        for name in WEIGHTS:
            records = tensor_records(load(files[name]))
            manifest["tensors"][name] = {key: record.model_dump() for key, record in records.items()}
    files[MANIFEST] = json.dumps(manifest).encode()


def flipped(content: bytes, at: int, rng: Rng) -> bytes:
    return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]


# --- torn: the bytes on the disk are not those that the digest promises


def truncated(files: Files, rng: Rng) -> None:
    name = rng.choice((*FILES, MANIFEST))
    files[name] = files[name][: rng.randrange(len(files[name]))]


def bit_flip(files: Files, rng: Rng) -> None:
    name = rng.choice((*FILES, MANIFEST))
    files[name] = flipped(files[name], rng.randrange(len(files[name])), rng)


def appended(files: Files, rng: Rng) -> None:
    files[rng.choice((*FILES, MANIFEST))] += rng.randbytes(rng.randrange(1, 2000))


def half_of_the_files(files: Files, rng: Rng) -> None:
    for name in rng.sample((*FILES, MANIFEST), rng.randrange(1, 5)):
        del files[name]


def files_exchanged(files: Files, rng: Rng) -> None:
    one, other = rng.sample((*FILES, MANIFEST), 2)
    files[one], files[other] = files[other], files[one]


def extra_file(files: Files, rng: Rng) -> None:
    name = rng.choice(("adapter_model.bin", "training_args.bin", ".hidden", "x.py", "README.md~"))
    files[name] = pickle.dumps(Bomb())


class Bomb:
    """Unpickling it leaves a trace."""

    trace = Path()

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Bomb.trace,))


# --- sealed: weights files that are no safetensors, or hold what they should not


def raw(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def a_pickle(files: Files, rng: Rng) -> None:
    files[rng.choice(WEIGHTS)] = pickle.dumps(Bomb())


def header_bomb(files: Files, rng: Rng) -> None:
    name = rng.choice(WEIGHTS)
    length = rng.choice((len(files[name]), 1 << 20, 1 << 32, (1 << 63) - 1, (1 << 64) - 1))
    files[name] = length.to_bytes(8, "little") + files[name][8:]


def long_header(files: Files, rng: Rng) -> None:
    tensor = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    files[rng.choice(WEIGHTS)] = raw({f"t{number}": tensor for number in range(rng.randrange(6000, 9000))})


def deep_header(files: Files, rng: Rng) -> None:
    files[rng.choice(WEIGHTS)] = raw(b"[" * rng.randrange(2000, 200_000))


def bent_header(files: Files, rng: Rng) -> None:
    name = rng.choice(WEIGHTS)
    length = int.from_bytes(files[name][:8], "little")
    header, data = json.loads(files[name][8 : 8 + length]), files[name][8 + length :]
    one = header[rng.choice(sorted(header.keys() - {"__metadata__"}))]
    change: dict[str, Any] = rng.choice(
        (
            {"shape": [10**30]},
            {"shape": [-1, *one["shape"]]},
            {"shape": "many"},
            {"dtype": "F33"},
            {"dtype": None},
            {"data_offsets": [0, 1 << 60]},
            {"data_offsets": [one["data_offsets"][0] + 4, one["data_offsets"][1] + 4]},
            {"data_offsets": [-4, 0]},
        )
    )
    one.update(change)
    files[name] = raw(header, data)


def header_that_names_a_tensor_twice(files: Files, rng: Rng) -> None:
    name = rng.choice(WEIGHTS)
    length = int.from_bytes(files[name][:8], "little")
    text = files[name][8 : 8 + length].rstrip()
    first = sorted(json.loads(text).keys() - {"__metadata__"})[0]
    again = f',"{first}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}'.encode()
    files[name] = raw(text[:-1] + again, files[name][8 + length :])


def other_metadata(files: Files, rng: Rng) -> None:
    name = rng.choice(WEIGHTS)
    files[name] = save(load(files[name]), metadata={"format": "pt", "note": str(rng.random())})


def header_flip(files: Files, rng: Rng) -> None:
    name = rng.choice(WEIGHTS)
    length = int.from_bytes(files[name][:8], "little")
    files[name] = flipped(files[name], rng.randrange(8 + length), rng)


def sealed_truncation(files: Files, rng: Rng) -> None:
    name = rng.choice(WEIGHTS)
    files[name] = files[name][: rng.randrange(len(files[name]))]


# --- sealed, tensors and all: weights that do not fit, are not finite, or compute something else


def spoil_tensors(change: Callable[[Tensors, str, Rng], None], files: Files, rng: Rng) -> None:
    name = rng.choice(WEIGHTS)
    tensors = load(files[name])
    change(tensors, rng.choice(sorted(tensors)), rng)
    files[name] = save(
        {key: tensor.contiguous() for key, tensor in tensors.items()}, metadata={"format": "pt"}
    )


def missing(tensors: Tensors, name: str, rng: Rng) -> None:
    for one in {name, rng.choice(sorted(tensors))}:
        del tensors[one]


def added(tensors: Tensors, name: str, rng: Rng) -> None:
    tensors[rng.choice((f"{name}.extra", "../../outside", "/etc/passwd", ""))] = tensors[name].clone()


def renamed(tensors: Tensors, name: str, rng: Rng) -> None:
    tensors[rng.choice((name[:-1], f"../{name}", name.upper()))] = tensors.pop(name)


def reshaped(tensors: Tensors, name: str, rng: Rng) -> None:
    tensor = tensors[name]
    wrong = (tensor[:-1], tensor[None], tensor.repeat_interleave(2, 0), tensor[:0], tensor.flatten()[:1])
    tensors[name] = rng.choice([one for one in wrong if one.shape != tensor.shape]).clone()


def retyped(tensors: Tensors, name: str, rng: Rng) -> None:
    tensors[name] = tensors[name].to(
        rng.choice((torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.bool))
    )


def not_finite(tensors: Tensors, name: str, rng: Rng) -> None:
    flat = tensors[name].view(-1)
    flat[rng.randrange(len(flat))] = rng.choice((float("nan"), float("inf"), float("-inf")))


def overflowing(tensors: Tensors, name: str, rng: Rng) -> None:
    tensors[name].fill_(rng.choice((3e38, -3e38)))


def computing_something_else(tensors: Tensors, name: str, rng: Rng) -> None:
    for one, tensor in tensors.items():
        tensor.mul_(rng.choice((-20.0, 20.0)) if one != name else -20.0)


# --- on the disk


def link_to_the_same_content(directory: Path, rng: Rng) -> None:
    name = rng.choice((*FILES, MANIFEST))
    outside = Path(tempfile.mkdtemp(dir=directory.parents[2])) / "outside"
    (directory / name).rename(outside)
    (directory / name).symlink_to(rng.choice((outside, Path(os.path.relpath(outside, directory)))))


def version_behind_a_link(directory: Path, rng: Rng) -> None:
    outside = Path(tempfile.mkdtemp(dir=directory.parents[2])) / "outside"
    directory.rename(outside)
    directory.symlink_to(
        rng.choice((outside, Path(os.path.relpath(outside, directory.parent)))), target_is_directory=True
    )


def not_a_file(directory: Path, rng: Rng) -> None:
    path = directory / rng.choice((*FILES, MANIFEST))
    path.unlink()
    rng.choice((path.mkdir, lambda: os.mkfifo(path), lambda: path.symlink_to(path)))()


def nothing_at_all(directory: Path, rng: Rng) -> None:
    shutil.rmtree(directory)
    if rng.random() < 0.5:
        directory.write_bytes(b"")


# --- LATEST.json itself


def pointer_flip(content: bytes, rng: Rng) -> bytes:
    """Anywhere but in the generation: another generation of a good adapter is no mutation."""
    return flipped(content, rng.randrange(content.index(b'"version"'), len(content) - 1), rng)


def strange_pointer(content: bytes, rng: Rng) -> bytes:
    pointer = json.loads(content)
    return rng.choice(
        (
            content[: rng.randrange(len(content) - 2)],
            content.rstrip()[:-1] + b', "generation": 10}',
            json.dumps({**pointer, "version": "../../outside"}).encode(),
            json.dumps({**pointer, "version": pointer["version"] + "/../" + pointer["version"]}).encode(),
            json.dumps({**pointer, "generation": 10**30}).encode(),
            json.dumps({**pointer, "generation": True}).encode(),
            json.dumps({**pointer, "generation": -1}).encode(),
            json.dumps({**pointer, "manifest_sha256": "0" * 64}).encode(),
            json.dumps({**pointer, "extra": 1}).encode(),
            b"[" * 4000,
            b" " * 100_000 + content,
            pickle.dumps(Bomb()),
        )
    )


TORN = (truncated, bit_flip, appended, half_of_the_files, files_exchanged, extra_file)
SEALED = (
    *(a_pickle, header_bomb, long_header, deep_header, bent_header, header_that_names_a_tensor_twice),
    *(other_metadata, header_flip, sealed_truncation, other_config, strange_config),
)
TENSORS = (missing, added, renamed, reshaped, retyped, not_finite, overflowing, computing_something_else)
FALSE = (wrong_field, wrong_field, wrong_field, missing_field, extra_field, file_outside, file_too_large)
DISK = (link_to_the_same_content, version_behind_a_link, not_a_file, nothing_at_all)
POINTERS = (pointer_flip, strange_pointer)
KINDS: tuple[tuple[str, Callable[..., Any]], ...] = (
    *(("torn", change) for change in TORN),
    *(("sealed", change) for change in SEALED),
    *(("tensors", partial(spoil_tensors, change)) for change in TENSORS),
    *(("manifest", partial(spoil_manifest, change)) for change in FALSE),
    ("manifest", strange_json),
    *(("disk", change) for change in DISK),
    *(("pointer", change) for change in POINTERS),
)


def put(store: Path, generation: int, files: Files) -> Latest:
    """Write files as a version that LATEST.json names, whatever they hold."""
    digest = hashlib.sha256(files[MANIFEST]).hexdigest()
    pointer = Latest(
        generation=generation, version=version_name(generation, files[MANIFEST]), manifest_sha256=digest
    )
    write(store / VERSIONS / pointer.version, files)
    (store / LATEST).write_bytes(pointer.to_bytes())
    return pointer


def write(directory: Path, files: Files) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)


def spoil(store: Path, number: int, good: Files, *, generation: int | None = None) -> tuple[str, Latest]:
    """Put mutation `number` of a good adapter into the store, and return its group and what LATEST.json named
    before it was perhaps spoiled itself.
    """
    group, change = KINDS[number % len(KINDS)]
    files, rng = dict(good), random.Random(number)
    if group in ("sealed", "tensors", "manifest"):
        change(files, rng)
        assert files != good
        if group != "manifest":
            seal(files, tensors=group == "tensors")
    pointer = put(store, generation or number, files)
    directory = store / VERSIONS / pointer.version
    if group == "torn":
        change(files, rng)
        assert files != good
        write(directory, files)
    elif group == "disk":
        change(directory, rng)
    elif group == "pointer":
        (store / LATEST).write_bytes(change(pointer.to_bytes(), rng))
    return group, pointer
