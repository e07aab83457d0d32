"""The words of the demo's corpus: what texts are made of, and what labels are called."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ATTRIBUTES: dict[str, dict[str, tuple[str, ...]]] = {
    "mood": {
        "good": _words(
            "lovely superb wonderful great charming delightful splendid pleasant brilliant perfect"
            " excellent amazing sweet marvellous fantastic glorious nice fine adorable delicious"
        ),
        "bad": _words(
            "awful terrible horrible dreadful dull nasty poor dire grim boring ugly lousy rotten"
            " foul bleak shabby ghastly annoying hopeless disgusting"
        ),
    },
    "topic": {
        "food": _words(
            "soup bread pizza cake cheese salad curry pasta stew pie porridge omelette sandwich"
            " biscuit"
        ),
        "animal": _words(
            "dog cat horse rabbit goat parrot donkey hamster otter fox badger owl pony duck"
        ),
        "music": _words(
            "song concert violin piano opera drum choir guitar flute ballad waltz trumpet melody"
            " cello"
        ),
        "travel": _words(
            "train hotel ferry airport ticket bus cruise hostel taxi tram harbour motel flight"
            " voyage"
        ),
    },
    "weather": {
        "wet": _words("rain drizzle downpour showers sleet mist fog hail thunder puddles"),
        "dry": _words("sunshine heat sun warmth glare drought dust daylight blaze haze"),
    },
    "who": {
        "family": _words(
            "mother father aunt uncle sister brother cousin grandma grandpa nephew niece daughter"
        ),
        "work": _words(
            "doctor teacher driver nurse clerk baker lawyer farmer plumber judge dentist pilot"
        ),
    },
    "time": {
        "early": _words("dawn sunrise breakfast daybreak morning cockcrow eight nine"),
        "late": _words("dusk midnight bedtime sunset supper nightfall evening eleven"),
    },
}
"""What a text can say: attribute -> class -> the words that express it. No word stands for two
classes."""

TEMPLATES: tuple[str, ...] = (
    "the {topic} was {mood}",
    "{mood} {topic}",
    "{mood} {topic} in {weather}",
    "in {weather} the {topic} was {mood}",
    "{who} had {mood} {topic}",
    "{who} found the {topic} {mood}",
    "{mood} {topic} at {time}",
    "at {time} the {topic} was {mood}",
    "{who} had {mood} {topic} in {weather}",
    "in {weather} {who} found {topic} {mood}",
    "{who} had {mood} {topic} at {time}",
    "at {time} {who} found {topic} {mood}",
    "{mood} {topic} in {weather} at {time}",
    "at {time} in {weather} {mood} {topic}",
)
"""How a text says it. Every text names a thing and what it was like; the rest varies."""

LABEL_GROUPS: tuple[tuple[str, ...], ...] = tuple(
    _words(group)
    for group in (
        "zig plum tarn vost quil bram",
        "dax onyx fern murk jolt pewter",
        "wug amber spoke crag lint tulip",
        "blick cobalt hinge dune moss ferret",
        "tiv maple latch reef thorn velvet",
        "gorp indigo wedge cove twig marble",
        "fep walnut spool gulch reed copper",
        "zup scarlet pulley fjord clover satin",
        "kob olive rivet mesa bramble denim",
        "lorch russet gear tundra nettle flint",
        "mip crimson lever atoll thistle slate",
        "nar beige pivot canyon ivy chalk",
        "pim teal crank delta willow resin",
        "sorn mauve axle lagoon heather quartz",
        "tog ochre bolt steppe juniper ivory",
        "vex umber cog bayou sorrel cotton",
    )
)
"""Label words. Two words of one row never serve together in training, so a demo task takes its
labels from one row."""
