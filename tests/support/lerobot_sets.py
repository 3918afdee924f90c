"""LeRobot datasets of the exact schema, v2.1 and v3.0, whose pictures tell their step."""

import io
import json

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
from PIL import Image

from films import SIDE, numbered, write_film

LENGTHS = (30, 41, 36)
TASKS = ("put the cup down", "fold the towel")
CAMERA = "observation.images.top"
JOINTS = 5


def numbers(lengths=LENGTHS, width=JOINTS):
    """Action and state of all steps: f32[n, width]."""
    rng, steps = np.random.default_rng(0), sum(lengths)
    return rng.normal(size=(steps, width)).astype(np.float32), rng.normal(size=(steps, width)).astype(np.float32)


def info(version, kind="video", size=SIDE, width=JOINTS, rate=10, lengths=LENGTHS):
    """Give what meta/info.json says."""
    motors = [f"joint_{number}.pos" for number in range(width)]
    scalar = {"dtype": "int64", "shape": [1], "names": None}
    shape = {"shape": [*size, 3], "names": ["height", "width", "channels"]}
    old = version == "v2.1"
    names = "episode_chunk:03d}", "episode_{episode_index:06d}"
    if not old:
        names = "chunk_index:03d}", "file-{file_index:03d}"
    video = "chunk-{" + names[0] + "/{video_key}" if old else "{video_key}/chunk-{" + names[0]
    return {
        "codebase_version": version,
        "robot_type": "so101",
        "total_episodes": len(lengths),
        "total_frames": sum(lengths),
        "total_tasks": len(TASKS),
        "chunks_size": 1000,
        "fps": rate,
        "splits": {"train": f"0:{len(lengths)}"},
        "data_path": "data/chunk-{" + names[0] + "/" + names[1] + ".parquet",
        "video_path": f"videos/{video}/{names[1]}.mp4" if kind == "video" else None,
        "features": {
            "action": {"dtype": "float32", "shape": [width], "names": motors},
            "observation.state": {"dtype": "float32", "shape": [width], "names": {"motors": motors}},
            CAMERA: {"dtype": kind, **shape},
            "timestamp": {"dtype": "float32", "shape": [1], "names": None},
            **dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), scalar),
        },
    }


def write_set(path, version="v2.1", kind="video", lengths=LENGTHS, width=JOINTS, size=SIDE, rate=10, film=None):
    """Write a dataset; each picture shows its step, counted over all episodes."""
    facts = info(version, kind, size, width, rate, lengths)
    (path / "meta").mkdir(parents=True)
    (path / "meta/info.json").write_text(json.dumps(facts))
    pictures, ends = numbered(sum(lengths), size), np.cumsum(lengths)
    tables = [_table(number, ends, lengths, width, rate) for number in range(len(lengths))]
    if kind == "image":
        tables = [_with_images(table, pictures[table["index"].to_numpy()]) for table in tables]
    write = _write_v2 if version == "v2.1" else _write_v3
    write(path, facts, tables, pictures if kind == "video" else None, {"rate": rate, **(film or {})})
    return path


def _table(number, ends, lengths, width, rate):
    """Give the rows of one episode."""
    action, state = numbers(lengths, width)
    steps, index = np.arange(lengths[number]), np.arange(ends[number] - lengths[number], ends[number])
    vector = arrow.list_(arrow.float32(), width)
    return arrow.table(
        {
            "action": arrow.array(list(action[index]), vector),
            "observation.state": arrow.array(list(state[index]), vector),
            "timestamp": arrow.array(steps / rate, arrow.float32()),
            "frame_index": steps,
            "episode_index": np.full(len(steps), number),
            "index": index,
            "task_index": np.full(len(steps), number % len(TASKS)),
        }
    )


def _with_images(table, pictures):
    """Add the pictures as PNG, named as LeRobot does."""
    cells = []
    for number, picture in enumerate(pictures):
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        cells.append({"bytes": buffer.getvalue(), "path": f"frame_{number:06d}.png"})
    kind = arrow.struct({"bytes": arrow.binary(), "path": arrow.string()})
    return table.append_column(CAMERA, arrow.array(cells, kind))


def _write_v2(path, facts, tables, pictures, film):
    lines = []
    for number, table in enumerate(tables):
        place = {"episode_chunk": 0, "episode_index": number}
        file = path / facts["data_path"].format(**place)
        file.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, file, row_group_size=16)
        lines.append({"episode_index": number, "tasks": [TASKS[number % len(TASKS)]], "length": len(table)})
        if pictures is not None:
            target = path / facts["video_path"].format(video_key=CAMERA, **place)
            write_film(target, pictures[table["index"].to_numpy()], **film)
    tasks = [{"task_index": number, "task": task} for number, task in enumerate(TASKS)]
    for name, rows in (("episodes", lines), ("tasks", tasks)):
        (path / f"meta/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _write_v3(path, facts, tables, pictures, film):
    """Write two episodes to each table file and all pictures to one film."""
    rows, ends = [], np.cumsum([len(table) for table in tables])
    for number, (table, end) in enumerate(zip(tables, ends.tolist(), strict=True)):
        begin = end - len(table)
        row = {"episode_index": number, "tasks": [TASKS[number % len(TASKS)]], "length": len(table)}
        row |= {"data/chunk_index": 0, "data/file_index": number // 2}
        row |= {"dataset_from_index": begin, "dataset_to_index": end, "stats/action/max": [0.0]}
        if pictures is not None:
            key = f"videos/{CAMERA}"
            row |= {f"{key}/chunk_index": 0, f"{key}/file_index": 0}
            row |= {f"{key}/from_timestamp": begin / film["rate"], f"{key}/to_timestamp": end / film["rate"]}
        rows.append(row)
    for first in range(0, len(tables), 2):
        file = path / facts["data_path"].format(chunk_index=0, file_index=first // 2)
        file.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(arrow.concat_tables(tables[first : first + 2]), file, row_group_size=50)
    file = path / "meta/episodes/chunk-000/file-000.parquet"
    file.parent.mkdir(parents=True)
    parquet.write_table(arrow.Table.from_pylist(rows), file)
    tasks = arrow.table({"task_index": np.arange(len(TASKS)), "__index_level_0__": list(TASKS)})
    parquet.write_table(tasks, path / "meta/tasks.parquet")
    if pictures is not None:
        write_film(path / facts["video_path"].format(video_key=CAMERA, chunk_index=0, file_index=0), pictures, **film)
