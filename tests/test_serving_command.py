"""The command line of ``uva serve``."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_servers import self_signed

from uva_lightning.serving.client import PolicyClient

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


@pytest.mark.slow
def test_uva_serve_with_tls_runs_until_sigterm(tiny_run, tmp_path, monkeypatch):
    assert tiny_run.start(tmp_path / "run", 1).wait(300) == 0
    script = tmp_path / "uva.py"
    script.write_text("import sys; from uva_lightning.cli import main; sys.exit(main())")
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src"), "UVA_TOKEN": "secret"}
    cert, key = self_signed(tmp_path)
    command = [sys.executable, script, "serve", "--ckpt", tmp_path / "run" / "last.ckpt", "--port", "0", "--every", "8"]
    command += ["--tls_cert", cert, "--tls_key", key]
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    seen = {"video/top": np.zeros((96, 96, 3), np.uint8), "state/agent": np.zeros(2, np.float32)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    try:
        address = process.stdout.readline().split()[-1]
        with pytest.raises(ConnectionError, match="401"):
            PolicyClient(address)
        with PolicyClient(address, token="secret") as client:
            assert client.infer(seen)["actions"].shape == (16, 2)
            process.send_signal(signal.SIGTERM)
            out, complaint = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "stopped after 1 requests in 1 calls" in out
    assert "Traceback" not in complaint
