"""A storage of bytes shown as complex numbers, 16 times its size."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_pickle_tensor_in_another_type(attack: Attack) -> None:
    attack.write(
        "model.pt",
        hp.archive(
            hp.pickled(
                hp.call(
                    hp.name("torch._utils", "_rebuild_tensor_v3"),
                    hp.storage(count=16, kind="ByteStorage"),
                    hp.number(0),
                    hp.row(hp.number(16)),
                    hp.row(hp.number(1)),
                    b"\x89",
                    hp.call(hp.name("collections", "OrderedDict")),
                    hp.name("torch", "complex128"),
                )
            ),
            {"0": bytes(16)},
        ),
    )
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[LIMIT]: model.pt holds a tensor of 16, which is 256 bytes, on 16 bytes\n"
            "Save a copy that stands for itself: tensor.contiguous().\n"
        ),
    )
