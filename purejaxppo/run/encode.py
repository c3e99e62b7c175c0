"""Pictures, uint8 [H, W, 3], as the bytes of a PNG, GIF or MP4 file."""

import io
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_PALETTE_FRAMES = 8  # frames from which a GIF's colours are chosen


def png(frame: np.ndarray) -> bytes:
    """Encode one picture."""
    from PIL import Image  # imported here, because training needs no pictures

    file = io.BytesIO()
    Image.fromarray(frame).save(file, "png", optimize=True)
    return file.getvalue()


def gif(frames: Sequence[np.ndarray], frames_per_second: int, colors: int) -> bytes:
    """Encode a GIF that repeats for ever.

    All frames have the same colours, without dithering, so that parts of the picture
    that do not change take no space.

    Args:
      frames: uint8 [H, W, 3] each; one that is repeated takes no space.
      frames_per_second: a divisor of 100, as a GIF counts in hundredths of a second.
      colors: size of the palette, at most 256.
    """
    from PIL import Image

    places = np.linspace(0, len(frames) - 1, min(len(frames), _PALETTE_FRAMES))
    sample = np.concatenate([frames[i] for i in places.astype(int)])
    palette = Image.fromarray(sample).quantize(colors, dither=Image.Dither.NONE)
    images = [
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in frames
    ]
    file = io.BytesIO()
    duration = 1000 // frames_per_second
    images[0].save(
        file,
        "gif",
        save_all=True,
        append_images=images[1:],
        duration=duration,
        loop=0,
        optimize=True,
    )
    return file.getvalue()


def mp4(frames: Sequence[np.ndarray], frames_per_second: int) -> bytes:
    """Encode a video in H.264, which all browsers play.

    Args:
      frames: uint8 [H, W, 3] each, all of one size.
      frames_per_second: the rate at which they are played.

    Raises:
      OSError: the encoder could not finish it, for example on a full disk.
    """
    import imageio_ffmpeg

    height, width, _ = frames[0].shape
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        # Its own `write_frames` forks this process, which JAX's threads do not allow.
        ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error"]
        raw = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {frames_per_second}"
        even = "pad=ceil(iw/2)*2:ceil(ih/2)*2"  # which these colours need
        made = f"-c:v libx264 -crf 20 -pix_fmt yuv420p -vf {even} -movflags +faststart"
        result = subprocess.run(
            [*ffmpeg, *raw.split(), "-i", "-", *made.split(), str(path)],
            input=b"".join(frame.tobytes() for frame in frames),
            capture_output=True,
            check=False,
        )
        if result.returncode:
            said = result.stderr.decode(errors="replace").strip().splitlines()
            raise OSError(f"ffmpeg: {said[0] if said else result.returncode}")
        return path.read_bytes()
