"""Keys of CURVE (Curve25519, as in CurveZMQ), by which arm server and clients know each other and encrypt.

``robot/`` holds what the server needs: ``server.key_secret``, and the public keys of those it lets in,
``clients/*.key``. ``client-NAME/`` holds what that client needs: ``client.key_secret`` and ``server.key``.
"""

from __future__ import annotations

from pathlib import Path

from uva_lightning.robot.errors import RobotConfigError
from uva_lightning.whole_files import whole

try:
    import zmq
    import zmq.auth
except ImportError as error:  # pragma: no cover - depends on the installation
    raise ImportError(
        f"An arm server needs pyzmq ({error}); install it with pip install 'uva_lightning[arm]'."
    ) from error

ROBOT, CLIENT, CLIENTS = "robot", "client", "clients"
SERVER_KEY, CLIENT_KEY, PUBLIC, SECRET = "server", "client", ".key", ".key_secret"


def make_keys(folder: Path, client: str) -> tuple[Path, Path]:
    """Write keys of a client, and of the server where there are none yet.

    Args:
        folder: Where both parts go.
        client: Name of the client among those that the server lets in.

    Returns:
        The server's folder and the client's.

    Raises:
        RobotConfigError: There is a client of this name, or the name is none.
    """
    if not client.replace("-", "").replace("_", "").isalnum():
        raise RobotConfigError(f"The client is called '{client}', expected letters, digits, - and _.")
    robot, own = folder / ROBOT, folder / f"{CLIENT}-{client}"
    if own.exists() or (robot / CLIENTS / f"{client}{PUBLIC}").exists():
        raise RobotConfigError(f"There are keys of '{client}' in {folder} already; name another client or remove them.")
    secret = robot / f"{SERVER_KEY}{SECRET}"
    if not secret.exists():
        public, private = zmq.curve_keypair()
        _write(robot / f"{SERVER_KEY}{PUBLIC}", public, None)
        _write(secret, public, private)
    public, private = zmq.curve_keypair()
    _write(robot / CLIENTS / f"{client}{PUBLIC}", public, None)
    _write(own / f"{SERVER_KEY}{PUBLIC}", _read(secret)[0], None)
    _write(own / f"{CLIENT_KEY}{SECRET}", public, private)
    return robot, own


def server_keys(folder: Path) -> tuple[bytes, bytes, frozenset[bytes]]:
    """Give the server's public and secret key, and the public keys of those it lets in.

    Raises:
        RobotConfigError: They are not there.
    """
    public, private = _read_secret(folder / f"{SERVER_KEY}{SECRET}")
    known = frozenset(_read(path)[0] for path in sorted((folder / CLIENTS).glob(f"*{PUBLIC}")))
    if not known:
        raise RobotConfigError(f"{folder / CLIENTS} has no key of a client; make one with 'uva arm keys'.")
    return public, private, known


def client_keys(folder: Path) -> tuple[bytes, bytes, bytes]:
    """Give a client's public and secret key, and the server's public one.

    Raises:
        RobotConfigError: They are not there.
    """
    public, private = _read_secret(folder / f"{CLIENT_KEY}{SECRET}")
    return public, private, _read(folder / f"{SERVER_KEY}{PUBLIC}")[0]


def _write(path: Path, public: bytes, secret: bytes | None) -> None:
    """Write a certificate in the format of zmq.auth; a secret one only its owner may read."""
    lines = ["curve", f'    public-key = "{public.decode()}"']
    lines += [] if secret is None else [f'    secret-key = "{secret.decode()}"']
    with whole(path) as part:
        part.touch(mode=0o644 if secret is None else 0o600)
        part.write_text("\n".join(lines) + "\n")


def _read_secret(path: Path) -> tuple[bytes, bytes]:
    public, secret = _read(path)
    if secret is None:
        raise RobotConfigError(f"{path} has no secret key, expected a file of 'uva arm keys'.")
    if path.stat().st_mode & 0o077:
        raise RobotConfigError(f"{path} can be read by others than its owner; run: chmod 600 {path}")
    return public, secret


def _read(path: Path) -> tuple[bytes, bytes | None]:
    if not path.is_file():
        raise RobotConfigError(f"{path} is no key: there is no such file; copy a folder of 'uva arm keys' here.")
    try:
        public, secret = zmq.auth.load_certificate(path)
    except (OSError, ValueError) as error:
        raise RobotConfigError(
            f"{path} is no key ({error}), expected one of 'uva arm keys'; copy the right folder here."
        ) from error
    return public, secret
