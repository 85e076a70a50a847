"""Reading of prompts: chooses light, land, ground, things and weather of a picture by the prompt's words."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

Light = Literal["night", "neon", "aurora", "sunset", "dawn", "storm", "day", "space"]
Land = Literal["city", "forest", "mountains", "hills", "dunes", "planet", "room", "lamp"]
Ground = Literal["water", "meadow", "snow", "sand", "street"]
Thing = Literal["lighthouse", "boat", "rowboat", "birds", "balloon", "figure", "house", "tree", "castle"]
Weather = Literal["snowfall", "rain", "lightning", "mist"]

Colour = tuple[int, int, int]
_Name = TypeVar("_Name", bound=str)


def rgb(text: str) -> Colour:
    """Return the colour of six hex digits."""
    return int(text[0:2], 16), int(text[2:4], 16), int(text[4:6], 16)


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of a light."""

    sky: tuple[Colour, ...]
    """From the top of the sky to the horizon."""
    haze: Colour
    """The colour that far things fade into."""
    near: Colour
    """The colour of the nearest silhouettes."""
    sun: Colour
    cloud: Colour
    daylight: float
    """The share of its own colour that the ground shows, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Scenery:
    """The content of a picture."""

    light: Light
    palette: Palette
    land: Land
    ground: Ground
    things: tuple[Thing, ...]
    weather: tuple[Weather, ...]


def _make_palette(sky: str, others: str, daylight: float) -> Palette:
    """Return a palette from hex colours; `others` are haze, near, sun and cloud."""
    haze, near, sun, cloud = map(rgb, others.split())
    return Palette(tuple(map(rgb, sky.split())), haze, near, sun, cloud, daylight)


PALETTES: Mapping[Light, Sequence[Palette]] = {
    "night": (
        _make_palette("060a1e 101b40 22356b 4d5f95 8f93b5", "47578a 050814 f6f1dc 2c3b6b", 0.16),
        _make_palette("04101f 0b2540 16425f 3c7089 8fb0b3", "37657c 030b14 f1f5ea 1d4560", 0.16),
    ),
    "neon": (
        _make_palette("0a0620 231048 571b6e a8327c f2708a", "7b2a78 090516 ffd9ec 6b2a78", 0.12),
        _make_palette("04081f 0b1c4a 123f7a 1c7a9c 74d0c8", "1f6089 040a18 d8fff6 1c4d83", 0.12),
    ),
    "aurora": (_make_palette("040718 08132b 0f2a41 1d4a55 3f7a72", "255560 040a12 e8fff2 12333f", 0.2),),
    "sunset": (
        _make_palette("2b1d55 73306c c94a5c f2834b ffc873", "e57a57 1d1128 fff1c4 8a3c66", 0.32),
        _make_palette("1d2b5e 574382 b75a86 f28a78 ffd5a3", "dc8587 1a1530 fff3d6 7d4a83", 0.32),
        _make_palette("17324a 3f5d70 b98a6a f3b15c ffe2a0", "d8a067 1a1c22 fff6cf 8f7363", 0.36),
    ),
    "dawn": (
        _make_palette("6a8fbf 9fb6d6 d9c5d0 f7d5c2 fff0dc", "d3c3cf 3b4760 fffaf0 f4dcdc", 0.55),
        _make_palette("7fa6a8 a9c6bf dbdcc4 f6e6c4 fff7e2", "cbd2c2 35504d fffdf0 f3efdc", 0.55),
    ),
    "storm": (
        _make_palette("151b24 27313d 43505c 6c7a80 9aa5a3", "5d6a73 0c1116 dfe7e6 2b343e", 0.3),
        _make_palette("141a1c 26332f 46574d 758270 aeb094", "627062 0b110e e9eedd 2a3632", 0.3),
        _make_palette("070a14 111a2c 24344c 3f566e 65809a", "32465c 04070d dbe6f2 141d2e", 0.22),
    ),
    "day": (
        _make_palette("1f63b5 4a93da 86c0ee c0e0f5 eaf5f8", "a5cae0 1c3b3f fffbe8 ffffff", 0.85),
        _make_palette("1785a8 49afc4 8fd2d4 c9e9dd f6f4de", "a9d3cf 153f47 fffbe0 ffffff", 0.85),
    ),
    "space": (
        _make_palette("04030d 0a0822 180f3a 2d1450 431a56", "2d1a50 030208 ffe9cf 47207a", 0.25),
        _make_palette("020810 051726 0b2b3f 134457 1f5a63", "17475a 010509 eaffff 1b5b70", 0.25),
    ),
}

_LIGHTS: Mapping[Light, str] = {
    "space": "space galaxy nebula planet planets cosmos cosmic astronaut orbit spaceship starship mars moonscape",
    "aurora": "aurora northern lights polar",
    "neon": "neon cyberpunk nightclub arcade tokyo hologram holographic futuristic",
    "storm": "storm stormy thunder thunderstorm lightning rain rainy raining tempest hurricane grey gray gloomy "
    "overcast",
    "night": "beam night midnight moon moonlit moonlight stars starry starlight dark darkness nocturnal lantern "
    "lanterns",
    "sunset": "sunset dusk evening golden twilight autumn fall ember fire campfire orange warm sundown",
    "dawn": "dawn sunrise morning mist misty fog foggy pastel haze hazy spring soft",
    "day": "day noon sunny bright summer blue clear afternoon daylight sunlight sunlit tropical",
}
_LANDS: Mapping[Land, str] = {
    "room": "inside interior stairs staircase stairwell cellar corridor dungeon vault crypt",
    "lamp": "lamp lens bulb chandelier reactor portal orb",
    "planet": "planet planets galaxy nebula space orbit cosmos spaceship starship",
    "city": "city skyline town street streets neon tokyo paris london york rooftop rooftops building buildings "
    "downtown market alley cyberpunk urban bridge apartment cafe café shop car cars taxi traffic office",
    "forest": "forest wood woods woodland tree trees pine pines jungle fox deer owl bear wolf redwood cabin autumn "
    "leaves",
    "mountains": "mountain mountains peak peaks alps alpine cliff cliffs summit eagle fjord himalaya volcano snow "
    "glacier winter ice arctic castle dragon ridge climber",
    "dunes": "desert dune dunes sand sahara camel mars canyon oasis pyramid pyramids",
    "hills": "hill hills meadow field fields flower flowers grass farm village horse horses wheat garden "
    "countryside vineyard valley lavender sheep",
}
_GROUNDS: Mapping[Ground, str] = {
    "water": "surf breakwater spray tide sea ocean wave waves harbour harbor boat boats ship ships lighthouse "
    "beach coast coastline island sail sailing sailboat lake river water fjord bay pier whale dolphin "
    "pond shore canal reflection",
    "snow": "snow snowy winter ice icy glacier arctic blizzard frozen penguin polar frost",
    "sand": "desert dune dunes sand sahara camel mars canyon pyramid pyramids moonscape",
    "street": "city street streets alley neon town market downtown urban car cars taxi rooftop skyline traffic "
    "cyberpunk",
    "meadow": "meadow field fields flower flowers grass farm village horse horses wheat garden forest wood woods "
    "hill hills",
}
_THINGS: Mapping[Thing, str] = {
    "lighthouse": "beam lighthouse beacon",
    "boat": "boat boats ship ships sail sailing sailboat yacht fisherman fishing",
    "rowboat": "lifeboat rowboat dinghy canoe oars oar",
    "birds": "bird birds gull gulls seagull seagulls eagle eagles crane cranes crow crows raven swallows flock",
    "balloon": "balloon balloons airship zeppelin",
    "castle": "castle fortress palace kingdom",
    "house": "house cabin cottage hut farm village lodge home",
    "tree": "oak tree willow",
    "figure": "keeper his her sailor captain soldier guard farmer man woman girl boy person people hero heroine "
    "detective traveler traveller wanderer child knight samurai warrior character she he hiker climber "
    "explorer astronaut monk dancer runner robot wizard witch princess king queen fisherman mother father "
    "couple walker stranger",
}
_WEATHERS: Mapping[Weather, str] = {
    "snowfall": "snowy snowing snowfall blizzard winter",
    "lightning": "lightning thunder thunderstorm storm stormy",
    "rain": "rain rainy raining rains storm stormy thunderstorm tempest downpour hurricane",
    "mist": "mist misty fog foggy haze hazy dawn",
}
_ANY_LIGHT: Sequence[Light] = ("sunset", "dawn", "day", "night", "sunset")
_GROUND_OF: Mapping[Land, Sequence[Ground]] = {
    "city": ("street", "water"),
    "forest": ("meadow", "water"),
    "mountains": ("water", "meadow"),
    "hills": ("meadow",),
    "dunes": ("sand",),
    "planet": ("sand",),
    "room": ("street",),
    "lamp": ("street",),
}


def read_scenery(prompt: str, rng: random.Random) -> Scenery:
    """Return the scenery of a prompt; `rng` decides everything that the prompt leaves open."""
    words = re.findall(r"\w+", re.sub(r"\b(after|before) (the|a) \w+", " ", prompt.lower()))
    named: Light | None = _find_best_match(words, _LIGHTS)
    light: Light = rng.choice(_ANY_LIGHT) if named is None else named
    if light == "night" and _has_any_word(words, _LIGHTS["storm"]):
        light = "storm"
    ground = _find_best_match(words, _GROUNDS)
    land = _find_best_match(words, _LANDS) or _choose_land(ground, rng)
    if land == "city" and _has_any_word(words, _GROUNDS["water"]):
        ground = "water"
    return Scenery(
        light=light,
        palette=_choose_palette(light, words, rng),
        land=land,
        ground=ground if ground and not (land == "city" and ground == "meadow") else rng.choice(_GROUND_OF[land]),
        things=tuple(_find_all_matches(words, _THINGS)),
        weather=tuple(_find_all_matches(words, _WEATHERS)),
    )


def _choose_palette(light: Light, words: Sequence[str], rng: random.Random) -> Palette:
    """Return a palette of the light: the darkest for a storm at night, the most golden for a golden sunset."""
    palettes = PALETTES[light]
    if light == "storm":
        return palettes[2] if _has_any_word(words, _LIGHTS["night"]) else rng.choice(palettes[:2])
    return palettes[2] if light == "sunset" and "golden" in words else rng.choice(palettes)


def _has_any_word(words: Sequence[str], listed: str) -> bool:
    return any(word in listed.split() for word in words)


def _choose_land(ground: Ground | None, rng: random.Random) -> Land:
    if ground == "street":
        return "city"
    if ground == "sand":
        return "dunes"
    return rng.choice(("mountains", "hills", "mountains", "forest")) if ground != "water" else "hills"


def _find_best_match(words: Sequence[str], table: Mapping[_Name, str]) -> _Name | None:
    """Return the entry with most matching words, the first one in the table of equal ones, or None."""
    counts = {name: sum(word in listed.split() for word in words) for name, listed in table.items()}
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] else None


def _find_all_matches(words: Sequence[str], table: Mapping[_Name, str]) -> list[_Name]:
    return [name for name, listed in table.items() if _has_any_word(words, listed)]
