"""Messages of the policy server: what comes through, what is refused, and that nothing breaks the decoder."""

from __future__ import annotations

import os
import tracemalloc

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from uva_lightning.serving.wire import DTYPES, MIB, Limits, WireError, decode, encode

SMALL = Limits(message_bytes=4096, array_bytes=1024, dims=3, entries=64, depth=4, text=32)


def packed(**fields):
    """A message with one array that has these fields, by the names on the wire."""
    usual = {"__ndarray__": True, "data": b"\0" * 8, "dtype": "<f4", "shape": [2]}
    fields = {name: value for name, value in {**usual, **fields}.items() if value is not None}
    return msgpack.packb({"x": {name.encode(): value for name, value in fields.items()}})


def scalar(value, dtype):
    return msgpack.packb({"x": {b"__npgeneric__": True, b"data": value, b"dtype": dtype}})


@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)])
def test_arrays_come_back(dtype, shape):
    value = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    found = decode(encode({"x": value}))["x"]
    assert found.dtype == value.dtype
    assert found.shape == shape
    np.testing.assert_array_equal(found, value)


def test_nested_messages_come_back():
    message = {"a": {"b": [1, -2.5, "text", None, True]}, "observation/image": np.zeros((2, 2, 3), np.uint8)}
    found = decode(encode(message))
    assert found["a"] == message["a"]
    assert found["observation/image"].shape == (2, 2, 3)


def test_scalars_of_numpy_keep_their_type():
    found = decode(encode({"a": np.float32(1.5), "b": np.uint8(7), "c": np.bool_(True), "d": np.int64(-3)}))
    assert {name: (type(value), value.item()) for name, value in found.items()} == {
        "a": (np.float32, 1.5),
        "b": (np.uint8, 7),
        "c": (np.bool_, True),
        "d": (np.int64, -3),
    }


def test_views_and_big_endian_arrays_come_back_native():
    value = np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(decode(encode({"x": value.T[::2]}))["x"], value.T[::2])
    found = decode(encode({"x": value.astype(">f8")}))["x"]
    assert found.dtype == np.dtype("=f8")
    np.testing.assert_array_equal(found, value)


def test_odd_bytes_make_honest_booleans():
    assert decode(packed(dtype="|b1", data=b"\x00\x02\xff", shape=[3]))["x"].astype(int).tolist() == [0, 1, 1]


@pytest.mark.parametrize("value", [np.array([object()]), np.array(["a"]), np.array([1j]), object(), {1, 2}, 1 << 70])
def test_what_is_no_number_is_not_sent(value):
    with pytest.raises(WireError, match="cannot be sent"):
        encode({"x": value})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no msgpack"),
        (b"\xc1", "no msgpack"),
        (b"\x80\x80", "no msgpack"),
        (b"\x81\xa1a", "no msgpack"),
        (b"\x81\xa1\xff\x01", "no msgpack"),
        (msgpack.packb([1]), "a list, expected a map"),
        (msgpack.packb({1: 2}), "map key"),
        (msgpack.packb({b"a": 2}), "the name b'a', expected text"),
        (msgpack.packb({"a": {"b": [{b"c": 1}]}}), "the name b'c', expected text"),
        (msgpack.packb({"a": msgpack.ExtType(5, b"")}), "extension of type 5"),
        (msgpack.packb({"a": msgpack.ExtType(5, b"x")}), "max_ext_len"),
        (msgpack.packb({"a": msgpack.Timestamp(1)}), "max_ext_len"),
        (packed(dtype="|O"), r"the dtype '\|O', expected one of b1, f2"),
        (packed(dtype="<U2"), "the dtype '<U2'"),
        (packed(dtype="<M8[s]"), "the dtype '<M8"),
        (packed(dtype="f4,f4"), "the dtype 'f4,f4'"),
        (packed(dtype=b"<f4"), "the dtype b'<f4'"),
        (packed(dtype=["f4"]), "the dtype"),
        (packed(shape=[3]), "has 8 bytes of data, expected 12 bytes"),
        (packed(shape=[-1]), r"the shape \[-1\]"),
        (packed(shape=[2.0]), r"the shape \[2.0\]"),
        (packed(shape=[True, 2]), "the shape"),
        (packed(shape=2), "the shape 2"),
        (packed(shape=[1] * 9), "at most 8 whole numbers"),
        (packed(shape=[0, 1 << 62], data=b""), "exceeds the limit"),
        (packed(shape=[1 << 40]), "exceeds the limit"),
        (packed(data="text"), "has str of data, expected 8 bytes"),
        (packed(shape=None), "lacks one of __ndarray__"),
        (packed(more=1), "or has more"),
        (packed(__ndarray__=1), "expected these four"),
        (scalar(1, "|O"), "the dtype"),
        (scalar(300, "|u1"), "300, out of its range|has the value 300"),
        (scalar("1", "<f4"), "the value '1', expected a number"),
        (scalar(1.5, "<i4"), "the value 1.5, expected a number"),
        (scalar([1], "<i4"), "expected a number"),
        (scalar(2, "|b1"), "the value 2, expected a number"),
    ],
)
def test_bad_messages_are_refused_in_a_sentence(data, words):
    with pytest.raises(WireError, match=words) as caught:
        decode(data)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"x": "a" * 33}, "max_str_len"),
        ({"x": np.zeros(257, np.float32)}, "max_bin_len|exceeds the limit of 1024"),
        ({"x": np.zeros((1, 1, 1, 1))}, "at most 3 whole numbers"),
        ({"x": list(range(65))}, "max_array_len|64 entries"),
        ({"x": [[0] * 10] * 10}, "more than 64 entries"),
        ({"x": [[[[1]]]]}, "nested too deeply, expected at most 4 levels"),
        ({"x": np.zeros(128), "y": np.zeros(128), "z": np.zeros(128), "u": np.zeros(128)}, "4[0-9]{3} bytes"),
    ],
)
def test_limits_hold(message, words):
    with pytest.raises(WireError, match=words):
        decode(encode(message), SMALL)


def test_limits_must_be_positive():
    with pytest.raises(ValueError, match="dims is 0"):
        Limits(dims=0)


@pytest.mark.parametrize("filler", [b"\x90", b"\x80", b"\xa1x", b"\xcb" + b"\0" * 8])
def test_small_messages_cannot_ask_for_much_memory(filler):
    """A byte of a message may become an object of 60: millions of them are refused before they are made."""
    count = 4 * MIB // len(filler)
    data = b"\x81\xa1x\xdd" + count.to_bytes(4, "big") + filler * count
    nested = b"\x81\xa1x" + b"\xdc\x0f\xff" * 900
    tracemalloc.start()
    try:
        for bad in (data, nested):
            with pytest.raises(WireError):
                decode(bad)
        assert tracemalloc.get_traced_memory()[1] < 40 * MIB
    finally:
        tracemalloc.stop()


LEAVES = (
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text(max_size=40)
    | st.binary(max_size=40)
)  # fmt: skip
MARKS = st.sampled_from([b"__ndarray__", b"__npgeneric__", b"data", b"dtype", b"shape", "function", "prompt", b"", "x"])
NAMES = st.sampled_from(
    [f"{order}{kind}" for order in "<>|=" for kind in ("f4", "u1", "b1", "O", "V8", "U4", "M8[ns]")]
)
SHAPES = st.lists(st.integers(-2, 5) | st.integers(0, 1 << 63), max_size=10)
FAKE = st.fixed_dictionaries(
    {b"__ndarray__": st.booleans() | LEAVES, b"data": st.binary(max_size=64) | LEAVES, b"dtype": NAMES | LEAVES},
    optional={b"shape": SHAPES | LEAVES, b"__npgeneric__": st.just(True), b"more": LEAVES},
)
TREES = st.recursive(
    LEAVES | FAKE,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(MARKS | st.text(max_size=8), inner, max_size=6),
    max_leaves=30,
)
LENGTH = int(os.environ.get("UVA_FUZZ_EXAMPLES", "200"))
FUZZ = settings(max_examples=LENGTH, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def survives(data, limits=SMALL):
    """Decode, or be refused with a sentence; whatever was let in can be sent again and means the same."""
    try:
        found = decode(data, limits)
    except WireError:
        return
    np.testing.assert_equal(decode(encode(found), Limits()), found)


@FUZZ
@given(st.binary(max_size=300))
@example(b"\x81\xa1x\xd4\xff\x00")
def test_fuzz_bytes(data):
    survives(data)
    survives(b"\x81\xa1x" + data)


@FUZZ
@given(TREES)
def test_fuzz_trees(tree):
    try:
        data = msgpack.packb({"x": tree})
    except (ValueError, OverflowError, UnicodeEncodeError):
        return
    survives(data)
    survives(data, Limits())


@FUZZ
@given(TREES, st.data())
def test_fuzz_broken_messages(tree, draw):
    """Bytes of real messages changed, left out and put twice."""
    try:
        data = bytearray(msgpack.packb({"x": tree, "y": {b"__ndarray__": True, b"data": b"1234", b"dtype": "<f4"}}))
    except (ValueError, OverflowError, UnicodeEncodeError):
        return
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, len(data) - 1))
        data[at : at + draw.draw(st.integers(0, 2))] = draw.draw(st.binary(max_size=2))
        if not data:
            return
    survives(bytes(data))


@FUZZ
@given(arrays.arrays(st.sampled_from(sorted(DTYPES)).map(np.dtype), arrays.array_shapes(min_dims=0, max_dims=3)))
def test_fuzz_arrays_come_back(value):
    found = decode(encode({"x": value}))["x"]
    assert (found.dtype, found.shape, found.tobytes()) == (value.dtype, value.shape, value.tobytes())
