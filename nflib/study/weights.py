"""Published models: 8-bit codes and what else inference needs, so that nobody trains again what this study trained.

A file is results/models/KEY.safetensors, KEY as checkpoints have it (the digest of recipe and base models), with a card in
its metadata: what it is, its training, commit, seconds, hardware.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from nflib.files import writing
from nflib.names import UserError
from nflib.quantize import decode, encode, weighted_layers
from nflib.study.records import MANIFEST, results


def path_of(key: str) -> Path:
    """Where the published model of a key lies."""
    return results() / "models" / f"{key}.safetensors"


def write(key: str, model: nn.Module, bits: int, facts: dict, words: str, classes: int, image_size: int) -> Path:
    """Store a trained model as codes of `bits` bits, a scale a layer, and float32 for all that is no weight of a layer.

    facts: of its training, as `trained` has them.  classes, image_size: of its data set.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    for name, layer in weighted_layers(model).items():
        codes, scale = encode(layer.weight.detach().cpu(), bits)
        state[f"{name}.weight"], state[f"{name}.weight.scale"] = codes.contiguous(), scale.reshape(1).float()
    card = {"key": key, "words": words, "bits": bits, "facts": facts, "classes": classes, "image_size": image_size}
    with writing(path_of(key)) as part:
        save_file(state, part, {"card": json.dumps(card, sort_keys=True)})
    return path_of(key)


def read(key: str, build: Callable[[dict], nn.Module]) -> tuple[nn.Module, dict, str]:
    """The model that `build` makes of a published model's card, filled with its weights, decoded; its card; the file's sha256.

    Raises UserError for a file that is damaged, of another architecture, or not what the manifest says.
    """
    path = path_of(key)
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        with safe_open(path, "pt") as file:
            card = {"key": key, **json.loads(file.metadata()["card"])}
            state = {name: file.get_tensor(name) for name in file.keys()}
        for name in [name for name in state if name.endswith(".weight.scale")]:
            weight = name.removesuffix(".scale")
            state[weight] = decode(state[weight], state.pop(name)[0])
        if card["key"] != key:
            raise ValueError("another model's")
        model = build(card)
        model.load_state_dict(state)
    except OSError as error:
        raise UserError(f"published model {path} cannot be read: {error.strerror or error}") from None
    except (SafetensorError, LookupError, ValueError, RuntimeError, TypeError, RecursionError):
        raise UserError(f"published model {path} is damaged; git checkout restores it") from None
    manifest = results() / MANIFEST
    lines = manifest.read_text("utf-8", "replace").splitlines() if manifest.exists() else []
    if any(line.endswith(f"  models/{path.name}") and line[:64] != digest for line in lines):
        raise UserError(f"published model {path} is not what {manifest} says; git checkout restores it")
    return model, card, digest


def card(path: Path) -> dict:
    """What is known of a published model: key, size in bytes, words, bits, classes, image_size, facts of its training.

    Raises UserError for a file that is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            return {"key": path.stem, "bytes": path.stat().st_size, **json.loads(file.metadata()["card"])}
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        raise UserError(f"published model {path} is missing or damaged; git checkout restores it") from None


def cards() -> list[dict]:
    """The card of each published model, in the order of their words."""
    return sorted(map(card, (results() / "models").glob("*.safetensors")), key=lambda card: card["words"])

