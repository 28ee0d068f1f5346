"""What a checkpoint's pickle asks for, read off its instructions without following them: bounds before work.

torch's restricted unpickler runs only what it knows, but what it knows may ask for a terabyte (`torch.Tensor(10**12)`,
a layer built instead of restored), may show a tensor of any size on four bytes (a stride of 0), and may take forever
(a key made of tuples inside tuples). So the instructions are followed here first with stand-ins (`claims`). What torch
refuses is left to torch, in its words.

`pickletools` reads the instructions (PEP 307 describes those of protocol 2, the only ones that torch takes).
"""

from __future__ import annotations

import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bnfold.errors import LimitError
from bnfold.loading.claims import JUDGED, Claims, Global, Opaque, Refused, Row, Tensor
from bnfold.wording import first_line

PLAIN = "Save model.state_dict(), with plain tensors and short keys."

HEAVIEST_TUPLE = 1_000_000  # elements, counted as often as they stand in it
MOST_HASHED = 50_000_000  # elements of tuples put into containers, of which each may have to be hashed
KEY_BITS = 60  # integers above share their hashes with others


@dataclass
class Tape:
    """The instructions of one pickle, followed with stand-ins.

    Args:
        claims: What the file holds, and what its tensors claim of that.
    """

    claims: Claims
    hashed: int = 0

    def follow(self, data: bytes) -> None:
        """Follows all instructions.

        Raises:
            LimitError: They ask for more than the file holds, or than the limit.
            Refused: They are none that torch.save writes; torch may say which.
        """
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        try:
            for instruction, argument, _ in pickletools.genops(data):
                step = _STEPS.get(instruction.name)
                if step is None:
                    raise Refused(instruction.name)
                step(self, argument)
        except UnicodeDecodeError as error:
            raise Refused("a name that is not ASCII") from error
        except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
            raise Refused(first_line(error), damaged=True) from error

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _global(self, argument: str) -> None:
        module, _, what = argument.partition(" ")
        if (module, what) in NAME_MAPPING:
            module, what = NAME_MAPPING[module, what]
        self._push(Global(f"{IMPORT_MAPPING.get(module, module)}.{what}"))

    def _row(self, count: int | None) -> None:
        items = tuple(self._to_mark() if count is None else self._stack[len(self._stack) - count :])
        if count:
            if len(items) < count:
                raise IndexError("the stack is empty")
            del self._stack[-count:]
        weight = 1 + sum(item.weight if isinstance(item, Row) else 1 for item in items)
        if weight > HEAVIEST_TUPLE:
            raise LimitError(f"{self.claims.name} holds a tuple of more than {HEAVIEST_TUPLE} elements", PLAIN)
        self._push(Row(items, weight))

    def _to_mark(self) -> list[Any]:
        at = self._marks.pop()
        items = self._stack[at:]
        del self._stack[at:]
        return items

    def _storage(self, _: object) -> None:
        self._push(self.claims.storage(self._stack.pop()))

    def _reduce(self, _: object) -> None:
        arguments = self._stack.pop()
        self._stack[-1] = self.claims.made(self._stack[-1], arguments)

    def _new(self, _: object) -> None:
        arguments, kind = self._stack.pop(), self._stack.pop()
        given = not isinstance(arguments, Row) or bool(arguments.items)
        if not isinstance(kind, Global):
            raise Refused("an object of no class")
        if kind.name == "torch.nn.parameter.Parameter":
            return self._push(Tensor())
        if kind.name.startswith(JUDGED) and (given or kind.name.endswith(("Tensor", "Storage"))):
            raise Refused(kind.name)
        return self._push(Opaque())

    def _build(self, _: object) -> None:
        self._stack.pop()
        if not isinstance(self._stack[-1], Opaque):
            raise Refused("a tensor that is changed")

    def _put(self, items: Sequence[Any], keys: Sequence[Any] = ()) -> None:
        """Items go into the container below them, which may have to compute their hashes."""
        if not isinstance(self._stack[-1], Opaque) or any(type(key) is int and abs(key) >> KEY_BITS for key in keys):
            raise Refused("what is put into a container")
        self.hashed += sum(item.weight for item in items if isinstance(item, Row))
        if self.hashed > MOST_HASHED:
            raise LimitError(
                f"{self.claims.name} puts tuples of more than {MOST_HASHED} elements into containers", PLAIN
            )

    def _append(self, _: object) -> None:
        self._put([self._stack.pop()])

    def _append_all(self, _: object) -> None:
        self._put(self._to_mark())

    def _set(self, _: object) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._put([key, value], [key])

    def _set_all(self, _: object) -> None:
        items = self._to_mark()
        self._put(items, items[::2])

    def _remember(self, key: int) -> None:
        self._memo[key] = self._stack[-1]

    def _mark(self, _: object) -> None:
        self._marks.append(len(self._stack))


Step = Callable[[Tape, Any], None]


def _constant(value: Any) -> Step:
    return lambda tape, _: tape._push(value)


def _each(names: Iterable[str], step: Step) -> dict[str, Step]:
    return dict.fromkeys(names, step)


def _nothing(tape: Tape, _: object) -> None:
    return None


_STEPS: dict[str, Step] = {
    **_each(("PROTO", "STOP"), _nothing),
    **_each(("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE"), Tape._push),
    **_each(("NONE", "NEWTRUE", "NEWFALSE"), _constant(None)),
    **_each(("BINFLOAT", "SHORT_BINSTRING"), lambda tape, _: tape._push(Opaque())),
    **_each(("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"), lambda tape, _: tape._push(Opaque())),
    **_each(("BINPUT", "LONG_BINPUT"), Tape._remember),
    **_each(("BINGET", "LONG_BINGET"), lambda tape, key: tape._push(tape._memo[key])),
    "EMPTY_TUPLE": lambda tape, _: tape._row(0),
    "TUPLE1": lambda tape, _: tape._row(1),
    "TUPLE2": lambda tape, _: tape._row(2),
    "TUPLE3": lambda tape, _: tape._row(3),
    "TUPLE": lambda tape, _: tape._row(None),
    "MARK": Tape._mark,
    "GLOBAL": Tape._global,
    "BINPERSID": Tape._storage,
    "REDUCE": Tape._reduce,
    "NEWOBJ": Tape._new,
    "BUILD": Tape._build,
    "APPEND": Tape._append,
    "APPENDS": Tape._append_all,
    "SETITEM": Tape._set,
    "SETITEMS": Tape._set_all,
}
