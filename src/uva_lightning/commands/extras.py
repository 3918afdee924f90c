"""The extras of the package and the modules each one brings."""

EXTRAS = {
    "sim": ("gymnasium", "pymunk", "shapely", "cv2", "av", "matplotlib", "mujoco"),
    "data": ("zarr", "imagecodecs", "pyarrow", "av", "h5py"),
    "text": ("open_clip",),
    "serve": ("msgpack", "websockets"),
    "arm": ("av", "msgpack", "pyarrow", "zmq"),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "torchjd": ("torchjd",),
    "arx": ("arx5_interface",),
    "lerobot": ("lerobot",),
    "libero": ("h5py", "mujoco", "robosuite", "termcolor"),
}


def install_command(module: str) -> str:
    """Say how to install what a missing module needs: its extra, or else the module itself."""
    top = module.partition(".")[0]
    extra = next((name for name, modules in EXTRAS.items() if top in modules), None)
    return f"pip install 'uva_lightning[{extra}]'" if extra else f"pip install {top}"
