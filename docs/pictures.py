"""Takes the pictures of the report: a search for the digits' module, its report.html, headless Chromium.

    python docs/pictures.py

They show what comes now, so take them anew when the page or the search has changed; a person looks at each.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from PIL import Image  # matplotlib brings it

from optselect import AutoOptimizer
from optselect.recipes.digits import DigitsData, DigitsModel

COLOURS = 128
REFERENCE = Path(__file__).parent / "reference"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A file, the size of the page in it in pixels, and the reader's theme."""

    file: str
    width: int
    height: int
    dark: bool = False


PICTURES = (
    Picture(file="report.png", width=1120, height=1180),
    Picture(file="pictures/report-390-light.png", width=390, height=1640),
    Picture(file="pictures/report-1280-light.png", width=1280, height=1640),
    Picture(file="pictures/report-1280-dark.png", width=1280, height=1640, dark=True),
    Picture(file="pictures/report-1920-light.png", width=1920, height=1640),
)

# A window is no narrower than 500 pixels; a frame in it is.
_FRAME = '<body style="margin:0"><iframe src="{page}" style="width:{width}px;height:{height}px;border:0"></iframe>'


class Digits(DigitsModel):
    """With an optimizer of its own, as most modules have."""

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW and a scheduler."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}


def report(folder: Path) -> Path:
    """Search and train, and return the report of it."""
    L.seed_everything(0)
    auto = AutoOptimizer(progress=False)
    trainer = L.Trainer(
        max_epochs=12,
        accelerator="cpu",
        callbacks=[auto],
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Digits(), datamodule=DigitsData())
    if auto.report_path is None:
        sys.exit("no report was written")
    return Path(auto.report_path)


def take(picture: Picture, page: Path, browser: str, folder: Path) -> None:
    """Take one picture of `page`."""
    frame = folder / "frame.html"
    frame.write_text(_FRAME.format(page=page.as_uri(), width=picture.width, height=picture.height), encoding="utf-8")
    subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--allow-file-access-from-files",
            f"--blink-settings=preferredColorScheme={0 if picture.dark else 1}",
            f"--user-data-dir={folder / 'browser'}",
            f"--window-size={max(picture.width, 500)},{picture.height}",
            f"--screenshot={REFERENCE / picture.file}",
            frame.as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    # A page has few colours, and a repository keeps every picture for ever. Those of a few markers have to stay.
    file = REFERENCE / picture.file
    with Image.open(file) as taken:
        page_alone = taken.convert("RGB").crop((0, 0, picture.width, picture.height))
    small = page_alone.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    small.save(file, optimize=True)


def main() -> None:
    """Take all of them."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("this needs a Chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as name:
        page = report(Path(name))
        for picture in PICTURES:
            take(picture, page, browser, Path(name))


if __name__ == "__main__":
    main()
