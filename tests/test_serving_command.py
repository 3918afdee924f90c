"""The command line of ``uva serve``."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from small_servers import self_signed

DOCS = Path(__file__).parents[1] / "docs" / "serving.md"


@pytest.fixture
def broken(tmp_path):
    """A checkpoint that cannot be read; other options are refused before it is."""
    (tmp_path / "broken.ckpt").write_bytes(b"broken")
    return tmp_path / "broken.ckpt"


def test_the_documented_tls_options_are_taken(uva, broken, tmp_path, monkeypatch):
    self_signed(tmp_path)
    monkeypatch.chdir(tmp_path)
    options = shlex.split(re.search(r"`(--tls.*?)`", DOCS.read_text())[1])
    status, _, complaint = uva("serve", "--ckpt", broken, *options, "--goal", "nowhere")
    assert status == 2
    assert "nowhere" in complaint  # and not of TLS, which is read before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tls_cert", "a.pem"], "tls_cert is a.pem and tls_key is missing, expected .*; add --tls_key FILE"),
        (["--tls_key", "b.pem"], "tls_key is b.pem and tls_cert is missing, expected .*; add --tls_cert FILE"),
        (["--tls_cert", "a.pem", "--tls_key", "b.pem"], "Cannot use a.pem with the key b.pem: .* expected two files"),
        (["--goal", "nope"], "goal is 'nope', expected an environment .*: pusht, block_push_rr, .*block_push_gg"),
        (["--goal", "pusht_m"], "goal is 'pusht_m', expected an environment with the same goal always: pusht,"),
    ],
)
def test_wrong_options_are_refused_with_the_fix(uva, broken, options, words):
    status, _, complaint = uva("serve", "--ckpt", broken, *options)
    assert status == 2
    assert re.search(words, complaint), complaint
