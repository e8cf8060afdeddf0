#!/usr/bin/env python3
"""Files of `torch.save` in all forms that weights are published in, and what PyTorch reads from them.

    python pickle_files.py

`pickle/<name>` are the files, `pickle/tensors.safetensors` has the tensors of all of them as `<file>/<name>`. `about` names
for each file what is to be refused, where it is to be. `pickle/refused` are files that must not be read.
"""
import collections
import io
import os
import pickle
import struct
import zipfile

import numpy
import torch
from safetensors.torch import load_file

from golden_file import GOLDEN, MODELS, quiet_and_repeatable, save_golden

FOLDER = GOLDEN / "pickle"


def numbers(*shape, dtype=torch.float32):
    count = 1
    for size in shape:
        count *= size
    return (torch.arange(count, dtype=torch.float64) / 7 - 1).reshape(shape).to(dtype)


class Callback:
    """Stands for a training framework's class, which is only named as a key."""


def ordered(pairs):
    state = collections.OrderedDict(pairs)
    state._metadata = collections.OrderedDict(version=1)
    return state


def files():
    base = numbers(4, 6)
    yield "flat.bin", ordered([("a.weight", numbers(2, 3)), ("a.bias", numbers(3, dtype=torch.float16)), ("b", numbers(2, 2, 2, dtype=torch.bfloat16))])
    yield "lightning.ckpt", {
        "epoch": 3, "global_step": 2**40, "pytorch-lightning_version": "1.4.2", "lr": 1e-4, "none": None, "flag": True,
        "callbacks": {Callback: {"best": numpy.float64(0.5), "path": "x"}},
        "optimizer_states": [{"state": {0: {"step": 7, "exp_avg": numbers(3)}}, "param_groups": [{"betas": (0.9, 0.999), "params": [0, 1]}]}],
        "state_dict": ordered([("model.transposed", base.t()), ("model.slice", base[1:3, 2:5]), ("model.column", base[:, 1]), ("model.whole", base)]),
    }
    yield "learned_embeds.bin", {"<x>": numbers(8)}
    yield "embedding.pt", {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(numbers(2, 8))}), "name": "x", "step": 100}
    yield "parameters.pth", {"p": torch.nn.Parameter(numbers(3, 3)), "buffer": numbers(2).requires_grad_(False)}
    yield "kinds.pt", {
        "f64": numbers(2, dtype=torch.float64), "i64": torch.tensor([1, -2]), "i32": torch.tensor([1, -2], dtype=torch.int32),
        "i16": torch.tensor([3], dtype=torch.int16), "i8": torch.tensor([-3], dtype=torch.int8), "u8": torch.tensor([200], dtype=torch.uint8),
        "bool": torch.tensor([True, False]), "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3), "size": torch.Size([2, 3]),
    }


def save(path, content, **options):
    with open(path, "wb") as file:
        torch.save(content, file, **options)
    # Old files name where the source of each module lay.
    place = os.path.dirname(torch.__file__).encode()
    path.write_bytes(path.read_bytes().replace(place, b"/" + b"x" * (len(place) - 1)))


class Call:
    def __init__(self, function, arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def archive(data, extra=(), byte_order="little"):
    """A zip archive with this pickle in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        file.writestr("x/data.pkl", data)
        file.writestr("x/byteorder", byte_order)
        file.writestr("x/data/0", bytes(16))
        for name, content in extra:
            file.writestr(name, content)
    return buffer.getvalue()


def tensor_pickle(shape, strides, key="0", offset=0, elements=4, kind=b"FloatStorage"):
    """A pickle of {"t": tensor} with any claims."""
    def tuple_of(items):
        return b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", item) for item in items) + b"t"

    storage = b"(X\x07\0\0\0storagectorch\n" + kind + b"\nX" + struct.pack("<I", len(key)) + key.encode()
    storage += b"X\x03\0\0\0cpu\x8a\x08" + struct.pack("<q", elements) + b"tQ"
    return (b"\x80\x02}X\x01\0\0\0tctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"\x8a\x08" + struct.pack("<q", offset)
            + tuple_of(shape) + tuple_of(strides) + b"\x89Ntq\0Rs.")


def refused():
    yield "system.bin", archive(pickle.dumps({"a": Call(os.system, ("false",))}, 2)), "`posix.system`"
    yield "eval.pt", archive(pickle.dumps(Call(eval, ("1",)), 4)), "`builtins.eval`"
    # `getattr` of a class that is only named, which leads to everything.
    yield "getattr.pt", archive(b"\x80\x04c__builtin__\ngetattr\n(ctorch\nFloatStorage\nX\x08\0\0\0__init__tR."), "`__builtin__.getattr`"
    yield "instance.pt", archive(b"(S'x'\nios\nsystem\n."), "`os.system`"
    yield "nested-type.pt", archive(b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nNX\x01\0\0\0x\x85tR."), "`os.system`"
    yield "type-of-itself.pt", archive(b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n](ctorch._tensor\n_rebuild_from_type_v2\nNq\x00h\x00eR."), "`torch._tensor._rebuild_from_type_v2`"
    # Every tuple holds the last one twice: 2**60 leaves for who copies.
    bomb = b"\x80\x02N" + b"".join(b"q%ch%c\x86" % (n, n) for n in range(60)) + b"}X\x01\0\0\0aN"
    yield "memo-bomb.pt", archive(bomb + b"s."), ""
    yield "long-text.pt", archive(b"\x80\x02X\xff\xff\xff\xff"), "MiB of pickle"
    yield "shape.pt", archive(tensor_pickle([2**40, 2**40], [2**40, 1])), "does not lie in its storage"
    yield "repeated.pt", archive(tensor_pickle([2**40], [0])), "does not lie in its storage"
    yield "beyond.pt", archive(tensor_pickle([2, 2], [2, 1], offset=1)), "does not lie in its storage"
    yield "claims.pt", archive(tensor_pickle([8], [1], elements=8)), "does not lie in its storage"
    yield "negative.pt", archive(tensor_pickle([-1], [1])), "not described"
    yield "no-storage.pt", archive(tensor_pickle([4], [1], key="7")), 'storage "7"'
    yield "kind.pt", archive(tensor_pickle([4], [1], kind=b"ComplexFloatStorage")), "unknown kind"
    yield "truncated.pt", archive(tensor_pickle([4], [1])[:-20]), "cut short"
    yield "no-operation.pt", archive(b"\x80\x02\xff."), "operation 0xff"
    yield "extension.pt", archive(b"\x80\x02\x82\x01."), "operation 0x82"
    yield "empty-stack.pt", archive(b"\x80\x02R."), "nothing to work on"
    yield "script.pt", archive(b"\x80\x02}.", [("x/constants.pkl", b"\x80\x02).")]), "TorchScript"
    yield "zip.pt", archive(b"\x80\x02}.").replace(b"data.pkl", b"data.pkx"), "without `data.pkl`"
    yield "big.pt", archive(b"\x80\x02}.", byte_order="big"), "byte order"
    yield "plain.pt", pickle.dumps({"a": 1}, 2), "none that `torch.save` writes"


def flattened(name, content):
    if isinstance(content, torch.Tensor):
        yield name, content
    elif isinstance(content, torch.nn.ParameterDict):
        for key, value in content.items():
            yield f"{name}.{key}", value
    elif isinstance(content, dict):
        for key, value in content.items():
            if isinstance(key, str):
                yield from flattened(f"{name}.{key}" if name else key, value)


def main():
    quiet_and_repeatable()
    (FOLDER / "refused").mkdir(parents=True, exist_ok=True)
    tensors, reasons, names = {}, {}, []
    for name, content in files():
        variants = {name: {}}
        if name == "lightning.ckpt":
            variants["protocol-4.ckpt"] = {"pickle_protocol": 4}
        if name in ("lightning.ckpt", "embedding.pt", "kinds.pt"):
            variants["legacy-" + name] = {"_use_new_zipfile_serialization": False}
        for variant, options in variants.items():
            save(FOLDER / variant, content, **options)
            names.append(variant)
            read = torch.load(FOLDER / variant, weights_only=False)
            inner = read.get("state_dict", read)
            for key, tensor in flattened("", inner):
                tensors[f"{variant}/{key}"] = tensor.detach().contiguous()
    # As transformers saved a text encoder before there was safetensors.
    text_encoder = load_file(MODELS / "tiny" / "text_encoder" / "model.safetensors")
    positions = {"text_model.embeddings.position_ids": torch.arange(77).expand((1, -1))}
    (FOLDER / "text_encoder").mkdir(exist_ok=True)
    save(FOLDER / "text_encoder" / "pytorch_model.bin", ordered([*positions.items(), *text_encoder.items()]))
    for name, content, reason in refused():
        (FOLDER / "refused" / name).write_bytes(content)
        reasons[name] = reason
    save_golden("pickle/tensors.safetensors", tensors, "pickle_files.py", files=names, refused=reasons)


if __name__ == "__main__":
    main()
