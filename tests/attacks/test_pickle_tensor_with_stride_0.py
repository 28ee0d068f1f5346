"""A tensor of 4 TB that stands on 4 bytes, by strides of 0."""

from __future__ import annotations

import hostile_pickles as hp
from stage import Attack


def test_pickle_tensor_with_stride_0(attack: Attack) -> None:
    attack.write("model.pt", hp.archive(hp.pickled(hp.tensor(hp.storage(), (10**6, 10**6), (0, 0))), {"0": bytes(4)}))
    attack.refused(
        "inspect",
        "model.pt",
        *hp.ARCH,
        says=(
            "error[LIMIT]: model.pt holds a tensor of 1000000x1000000, which is 4000000000000 bytes, on 4 "
            "bytes\n"
            "Save a copy that stands for itself: tensor.contiguous().\n"
        ),
    )
