"""How much memory a large clip takes on its way from the wire to its place."""

import asyncio
import random
import sys
from fractions import Fraction
from pathlib import Path

import av
import pytest
from PIL import Image

from tests.support.servers import Loopback, answer

pytestmark = [pytest.mark.integration, pytest.mark.long]

MEGABYTE = 1_000_000
MOST_KB = 150_000
SIZE = (1920, 1080)
FPS, LOOP, FRAMES = 24, 6, 240

MEASURE = """
import asyncio, sys
from pathlib import Path
import av
from videogen.providers.replicate import ReplicateProvider
from videogen.media import conform, inspect_video

def status_kb(name):
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1])

def begin():
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    return status_kb("VmRSS")

async def download(url, part):
    provider = ReplicateProvider("local", base_url=url)
    await provider.download(url, part)
    await provider.aclose()

url, folder = sys.argv[1], Path(sys.argv[2])
part, out = folder / "clip.part", folder / "out.mp4"
idle_kb = begin()
asyncio.run(download(url, part))
print(status_kb("VmHWM") - idle_kb)
print(inspect_video(part, poster=folder / "poster.jpg").size_bytes)
print(status_kb("VmHWM") - idle_kb)
begin()
assert conform(part, out, ratio=None, fps=30, size=None, keep_audio=False)
print(status_kb("VmHWM") - idle_kb)
"""


def large_clip(path: Path) -> Path:
    """Ten seconds of full HD, every frame a key frame of grain: a few are encoded, and each is repeated as packets."""
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as target:
        stream = target.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "32", "g": "1"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        loop = [bytes(packet) for index in range(LOOP) for packet in stream.encode(grain(index))]
        loop += [bytes(packet) for packet in stream.encode(None)]
        for index in range(FRAMES):
            packet = av.Packet(loop[index * LOOP // FRAMES])
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, FPS), True
            packet.pts = packet.dts = index
            packet.duration = 1
            target.mux(packet)
    return path


def grain(index: int) -> av.VideoFrame:
    noise = Image.frombytes("L", SIZE, random.Random(index).randbytes(SIZE[0] * SIZE[1]))
    noise = Image.blend(noise, Image.linear_gradient("L").rotate(90 * index).resize(SIZE), 0.7)
    frame: av.VideoFrame = av.VideoFrame.from_image(noise.convert("RGB"))  # type: ignore[no-untyped-call]
    return frame


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads the peak from /proc")
async def test_a_clip_of_60_mb_is_taken_in_150_mb_of_memory(tmp_path: Path) -> None:
    """Above what the process takes at rest: downloaded, decoded to its end, brought to another frame rate in full HD.

    The file's length has no part in it: it is never held as a whole.
    """
    content = (await asyncio.to_thread(large_clip, tmp_path / "large.mp4")).read_bytes()
    assert len(content) == pytest.approx(60 * MEGABYTE, rel=0.1)
    async with Loopback(answer(body=content)) as server:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", MEASURE, server.url, str(tmp_path), stdout=asyncio.subprocess.PIPE
        )
        printed, _ = await process.communicate()
    assert process.returncode == 0
    downloaded_kb, size_bytes, checked_kb, conformed_kb = map(int, printed.split())
    assert size_bytes == len(content)
    print(downloaded_kb, checked_kb, conformed_kb)
    assert downloaded_kb < 20_000
    assert checked_kb < MOST_KB
    assert conformed_kb < MOST_KB
