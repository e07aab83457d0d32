"""The words of the demo's corpus: what texts are made of, and what labels are called."""

ATTRIBUTES: dict[str, dict[str, tuple[str, ...]]] = {
    "mood": {
        "good": tuple(
            "lovely superb wonderful great charming delightful splendid pleasant brilliant perfect excellent "
            "amazing sweet marvellous fantastic glorious nice fine adorable delicious".split()
        ),
        "bad": tuple(
            "awful terrible horrible dreadful dull nasty poor dire grim boring ugly lousy rotten foul bleak "
            "shabby ghastly annoying hopeless disgusting".split()
        ),
    },
    "topic": {
        "food": tuple(
            "soup bread pizza cake cheese salad curry pasta stew pie porridge omelette sandwich biscuit".split()
        ),
        "animal": tuple("dog cat horse rabbit goat parrot donkey hamster otter fox badger owl pony duck".split()),
        "music": tuple(
            "song concert violin piano opera drum choir guitar flute ballad waltz trumpet melody cello".split()
        ),
        "travel": tuple(
            "train hotel ferry airport ticket bus cruise hostel taxi tram harbour motel flight voyage".split()
        ),
    },
    "weather": {
        "wet": tuple("rain drizzle downpour showers sleet mist fog hail thunder puddles".split()),
        "dry": tuple("sunshine heat sun warmth glare drought dust daylight blaze haze".split()),
    },
    "who": {
        "family": tuple(
            "mother father aunt uncle sister brother cousin grandma grandpa nephew niece daughter".split()
        ),
        "work": tuple("doctor teacher driver nurse clerk baker lawyer farmer plumber judge dentist pilot".split()),
    },
    "time": {
        "early": tuple("dawn sunrise breakfast daybreak morning cockcrow eight nine".split()),
        "late": tuple("dusk midnight bedtime sunset supper nightfall evening eleven".split()),
    },
}
"""What a text can say: attribute -> class -> the words that express it. No word stands for two classes."""

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

FIELDS: tuple[tuple[str, str], ...] = tuple(
    (text, label)
    for text in "text review note line message sentence".split()
    for label in "label verdict tag answer kind group".split()
)
"""The names of the two lines of a demonstration. They say nothing about the task."""

LABEL_GROUPS: tuple[tuple[str, ...], ...] = tuple(
    tuple(group.split())
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
"""Label words. Two words of one row never serve together in training, so a demo task takes its labels from one row."""
