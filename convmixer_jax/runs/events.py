"""TensorBoard event files, written without TensorFlow.

    events = EventsFile(workdir / "tensorboard")
    events.write_scalars({"train/loss": 1.2}, step=50)

TensorBoard's own EventFileWriter would import TensorFlow wherever it is installed, seconds of start-up and a grab at
the accelerators; its record format and messages do not.
"""

import io
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


class EventsFile:
    """One new file of events in a folder, which is made."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}"
        self._records = RecordWriter(path.open("wb"))
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())

    def write_scalars(self, values: Mapping[str, float], step: int) -> None:
        """Adds one point to each curve."""
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def write_image(self, tag: str, image: np.ndarray, step: int) -> None:
        """Adds a picture, uint8 [H, W, 3]."""
        encoded = io.BytesIO()
        Image.fromarray(image).save(encoded, format="PNG")
        height, width, channels = image.shape
        picture = Summary.Image(
            height=height, width=width, colorspace=channels, encoded_image_string=encoded.getvalue()
        )
        summary = Summary(value=[Summary.Value(tag=tag, image=picture)])
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def flush(self) -> None:
        """Hands everything so far to the operating system."""
        self._records.flush()

    def close(self) -> None:
        """Closes the file."""
        self._records.close()
