"""One job: everything a person asked for, validated, in one frozen value.

A :class:`Request` is what the form, the command line, the API, the history and the mp4's metadata
exchange. Constructing one validates it; whatever cannot be used raises :class:`errors.BadInput`
naming the field, the value and the limit. Sizes are moved to the nearest the model can make, and
:attr:`Request.notes` says so. Files are only named here; :mod:`media` opens them.
"""

from __future__ import annotations

import dataclasses
import json
import math
import unicodedata
from dataclasses import dataclass
from typing import Any

from errors import BadInput
from fields import FRAMES_MAX, FRAMES_TRAINED, PIXELS_MAX, PROMPT_MAX, SIZE_MAX, SIZE_MIN, Field
from modes import MODES, Mode

FORMAT = 1  # of the JSON; raised when a field changes its meaning
SAVED = "Choose a video or a JSON file that this studio wrote."


@dataclass(frozen=True, kw_only=True)
class Request:
    """One job. ``None`` means the mode's default, or that the mode has no such control.

    Sizes are in pixels, ``seconds`` in seconds of video, ``audio_start`` in seconds into the audio
    file, strengths are LoRA or conditioning strengths. ``notes`` are sentences about values that
    were moved; they are neither compared nor saved.
    """

    mode: str
    prompt: str | None = None
    negative_prompt: str | None = None
    preset: str | None = None
    width: int | None = None
    height: int | None = None
    seconds: float | None = None
    fps: int | None = None
    seed: int | None = None
    image: str | None = None
    audio: str | None = None
    audio_start: float | None = None
    first_frame: str | None = None
    last_frame: str | None = None
    video: str | None = None
    image_strength: float | None = None
    control: str | None = None
    control_strength: float | None = None
    camera: str | None = None
    camera_strength: float | None = None
    detailer: bool | None = None
    detailer_strength: float | None = None
    ic_lora: str | None = None
    ic_strength: float | None = None
    pose: bool | None = None
    pose_strength: float | None = None
    metadata: bool | None = None
    notes: tuple[str, ...] = dataclasses.field(default=(), compare=False, repr=False)

    def __post_init__(self):
        mode = _mode(self.mode)
        values: dict[str, Any] = {}
        for name in VALUE_NAMES:
            given, spec = getattr(self, name), mode.field(name)
            if spec is None:
                if not _is_empty(given):
                    raise BadInput(
                        f"{name} is not used by {mode.key}",
                        name,
                        f"Leave {name} out, or choose a mode that has it.",
                    )
                values[name] = None
            elif given is None or (spec.is_media and _is_empty(given)):
                values[name] = self._default(mode, spec)
            else:
                values[name] = check_value(spec, given)
        notes: list[str] = []
        self._snap(mode, values, notes)
        for name, value in values.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "notes", tuple(notes))

    def _default(self, mode: Mode, spec: Field) -> Any:
        if spec.required:
            raise BadInput(
                f"{mode.title} needs {_a(spec.label)}",
                spec.name,
                f"Give one with {spec.flag} or in the form.",
            )
        if spec.name in ("width", "height"):
            preset = mode.presets.get(self.preset or "fast")
            if preset and preset.default_size:
                return preset.default_size[spec.name == "height"]
        return spec.default

    @staticmethod
    def _snap(mode: Mode, values: dict[str, Any], notes: list[str]) -> None:
        size = [snap_size(values[name], mode.size_step) for name in ("width", "height")]
        asked = [values["width"], values["height"]]
        if size != asked:
            notes.append(
                f"{asked[0]}x{asked[1]} becomes {size[0]}x{size[1]}: {mode.title} makes sizes in steps of {mode.size_step} px."
            )
        values["width"], values["height"] = size
        if size[0] * size[1] > PIXELS_MAX:
            raise BadInput(
                f"{size[0]}x{size[1]} is more than the model's {PIXELS_MAX / 1e6:.1f} megapixels",
                "width",
                "Choose a smaller width or height, for example 1920x1088.",
            )
        seconds, fps = values["seconds"], values["fps"]
        frames = frames_for(seconds, fps)
        if frames > FRAMES_MAX:
            raise BadInput(
                f"{seconds:g} s at {fps} fps are {frames} frames, more than the model's {FRAMES_MAX}",
                "seconds",
                f"Choose at most {FRAMES_MAX / fps:.0f} s, or fewer frames per second.",
            )
        if abs(frames / fps - seconds) > 0.5 / fps:
            notes.append(
                f"{seconds:g} s at {fps} fps becomes {frames} frames ({frames / fps:.2f} s)."
            )
        if frames > FRAMES_TRAINED:
            notes.append(
                f"{frames} frames is longer than the {FRAMES_TRAINED} the model was made for; the end may drift."
            )
        for side in values.keys() & {"prompt", "negative_prompt"}:
            values[side] = clean_text(values[side])

    # ------------------------------------------------------------------ derived

    @property
    def frames(self) -> int:
        """Frames of the video, always 8k+1."""
        return frames_for(self.seconds, self.fps)

    @property
    def duration(self) -> float:
        """Seconds the video really lasts: frames over fps."""
        return self.frames / self.fps

    @property
    def media(self) -> dict[str, str]:
        """The files this job reads: field name -> path as given."""
        return {
            f.name: getattr(self, f.name)
            for f in MODES[self.mode].fields
            if f.is_media and getattr(self, f.name)
        }

    def replace(self, **changes: Any) -> Request:
        """A copy with some values changed, validated anew."""
        return dataclasses.replace(self, notes=(), **changes)

    # ------------------------------------------------------------------ JSON

    def to_dict(self) -> dict[str, Any]:
        """The request as plain values: only what the mode has, plus the format's number."""
        values = {
            name: getattr(self, name) for name in VALUE_NAMES if getattr(self, name) is not None
        }
        return {"format": FORMAT, "mode": self.mode, **values}

    def to_json(self) -> str:
        """One line of JSON that :meth:`from_json` turns into an equal request."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Request:
        """Parse and validate; the text is untrusted.

        Raises:
            BadInput: not JSON, not a request, an unknown field, or a value out of its limits.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"This is not a saved request: {error}", "request", SAVED) from None
        return cls.from_dict(data)

    @classmethod
    def from_dict(cls, data: Any) -> Request:
        """As :meth:`from_json`, from already parsed JSON."""
        if not isinstance(data, dict) or not isinstance(data.get("mode"), str):
            raise BadInput("This is not a saved request: it names no mode", "request", SAVED)
        data = dict(data)
        version = data.pop("format", FORMAT)
        if version != FORMAT:
            raise BadInput(
                f"The saved request has format {str(version)[:20]}, this studio reads {FORMAT}",
                "request",
                SAVED,
            )
        unknown = sorted(set(data) - {"mode", *VALUE_NAMES})
        if unknown:
            raise BadInput(
                f"The saved request has an unknown field {unknown[0][:40]!r}", "request", SAVED
            )
        return cls(**data)


VALUE_NAMES = tuple(f.name for f in dataclasses.fields(Request) if f.name not in ("mode", "notes"))


def frames_for(seconds: float, fps: int) -> int:
    """Frames nearest to that length that the model can make: 8k+1, at least 9."""
    return 8 * max(1, round(seconds * fps / 8)) + 1


def snap_size(pixels: int, step: int) -> int:
    """The multiple of ``step`` nearest to ``pixels``, within the studio's limits."""
    low, high = -(-SIZE_MIN // step) * step, SIZE_MAX // step * step
    return min(high, max(low, math.floor(pixels / step + 0.5) * step))


def clean_text(text: str) -> str:
    """Text without control characters (newlines and tabs stay) and lone surrogates."""
    keep = "\n\t"
    text = text.encode("utf-8", "ignore").decode("utf-8").replace("\r\n", "\n")
    return "".join(c for c in text if c in keep or unicodedata.category(c) != "Cc").strip()


def check_value(spec: Field, value: Any) -> Any:
    """``value`` as the field's own type, or :class:`BadInput` naming field, value and limit."""
    shown = _shown(value)
    if spec.kind == "choice":
        if value not in spec.choices:
            raise BadInput(
                f"{spec.name} has no choice {shown!r}",
                spec.name,
                "Choose one of: " + ", ".join(spec.choices) + ".",
            )
        return value
    if spec.kind == "toggle":
        if not isinstance(value, bool):
            raise BadInput(
                f"{spec.name} is on or off, not {shown!r}", spec.name, "Choose true or false."
            )
        return value
    if spec.kind in ("integer", "number"):
        return _number(spec, value, shown)
    if not isinstance(value, str):
        raise BadInput(f"{spec.name} must be text, not {shown!r}", spec.name, "Give it as text.")
    if spec.kind == "text" and len(value) > PROMPT_MAX:
        raise BadInput(
            f"{spec.name} has {len(value):,} characters",
            spec.name,
            f"Shorten it to {PROMPT_MAX:,} at most.",
        )
    if spec.is_media and "\0" in value:
        raise BadInput(f"{spec.name} is not a file name", spec.name, "Choose a file.")
    return value


def _shown(value: Any) -> str:
    """A value in an error; Python refuses to print integers of more than 4,300 digits."""
    try:
        return str(value)[:60]
    except ValueError:
        return "a number of thousands of digits"


def _number(spec: Field, value: Any, shown: str) -> int | float:
    finite = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    unit = f" {spec.unit}" if spec.unit else ""
    advice = f"Choose between {spec.minimum:.10g} and {spec.maximum:.10g}{unit}."
    if isinstance(value, bool) or not finite:
        raise BadInput(f"{spec.name} must be a number, not {shown!r}", spec.name, advice)
    if spec.kind == "integer":
        if value != int(value):
            raise BadInput(f"{spec.name} must be a whole number, not {shown}", spec.name, advice)
        value = int(value)
    elif abs(value) <= abs(spec.maximum):
        value = float(value)
    if not spec.minimum <= value <= spec.maximum:
        side, limit = ("below", spec.minimum) if value < spec.minimum else ("above", spec.maximum)
        raise BadInput(
            f"{spec.name} {shown} is {side} {limit:.10g}{unit}",
            spec.name,
            advice,
        )
    return value


def _mode(key: Any) -> Mode:
    if not isinstance(key, str) or key not in MODES:
        raise BadInput(
            f"There is no mode {str(key)[:40]!r}",
            "mode",
            "Choose one of: " + ", ".join(MODES) + ".",
        )
    return MODES[key]


def _is_empty(value: Any) -> bool:
    return (
        value is None
        or value is False
        or (isinstance(value, str) and not value.strip())
        or value == "none"
    )


def _a(label: str) -> str:
    return ("an " if label[0].lower() in "aeiou" else "a ") + label.lower()
