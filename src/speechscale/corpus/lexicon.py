"""The words of the storyworld: names, values of facts, openings, scenery (topics and events: `topics.py`).

Enters: nothing. Leaves: `LEXICONS`, two plain word lists ("small", "large"; small is the head of large).
The one decision worth knowing: words that are values of facts occur nowhere else, so that a fact kept out of speech
cannot slip in through a topic or an event (a test compares the lists).
"""

from __future__ import annotations

from dataclasses import dataclass

from speechscale.corpus.topics import Event, Topic, first_events, first_topics, phrases


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """A relation of the fact table.

    Args:
        templates: sentences with {v} (the value) and {s} (name or she/he), {o} (her/him) or {p} (her/his).
        values: pool of values; empty for "friend", whose values are other characters.
    """

    name: str
    templates: tuple[str, ...]
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lexicon:
    """Every list the storyworld draws from; verbs are (base, third person, past), nouns (singular, plural)."""

    women: tuple[str, ...]
    men: tuple[str, ...]
    relations: tuple[Relation, ...]
    weathers: tuple[str, ...]
    times: tuple[str, ...]
    walks: tuple[str, ...]
    ways: tuple[str, ...]
    moods: tuple[str, ...]
    topics: tuple[Topic, ...]
    events: tuple[Event, ...]
    nouns: tuple[tuple[str, str], ...]
    verbs: tuple[tuple[str, str, str], ...]
    adjectives: tuple[str, ...]
    settings: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_WOMEN = _words("""
    anna bella carmen susan edith fiona gloria helen irene jessica karen linda maria nora olivia patricia rachel sophie
    teresa ursula miranda wendy yvonne zoe beatrice charlotte deborah emily frances monica heidi ingrid julia kimberly
    shirley martha nancy pamela ruth sandra tiffany veronica whitney abigail cynthia dolores esther margaret
""")
_MEN = _words("""
    adam boris carlos david edward felix george henry isaac jacob kevin leonard michael nathan oscar peter quentin
    robert simon thomas victor walter xavier arthur benjamin douglas ernest frederick gustav hugo igor joseph kenneth
    lucas martin clifford otto patrick ralph stephen timothy ulrich vincent william andrew bruno colin derek
""")

RELATIONS = (
    Relation(
        name="home",
        templates=("{s} lives near the {v}.", "{s} goes home to the {v}.", "{p} house is by the {v}."),
        values=_words("""harbor castle forest lake mill tower church valley beach museum library theater temple desert
            canyon meadow lighthouse waterfall volcano airport palace jungle factory swamp"""),
    ),
    Relation(
        name="food",
        templates=("{s} likes to eat {v}.", "{s} eats {v} for lunch.", "{p} best meal is {v}."),
        values=_words("""honey cheese rice soup pasta bacon mushrooms pancakes salad beans yogurt noodles chocolate
            porridge pizza peanuts carrots dumplings sausage popcorn waffles cabbage pumpkin spinach"""),
    ),
    Relation(
        name="job",
        templates=("{s} works as a {v}.", "{s} earns money as a {v}.", "people know {o} as a {v}."),
        values=_words("""baker doctor painter driver singer pilot barber tailor plumber gardener lawyer waiter hunter
            butcher carpenter reporter dentist miner jeweler translator printer potter banker magician"""),
    ),
    Relation(
        name="toy",
        templates=("{s} plays with a {v}.", "{s} keeps a {v} in the box.", "{p} best toy is a {v}."),
        values=_words("""kite puzzle ball robot doll marble balloon puppet rocket wagon scooter whistle domino tricycle
            slingshot boomerang frisbee teddy trampoline hoop skateboard shovel pinwheel telescope"""),
    ),
    Relation(
        name="wear",
        templates=("{s} wears a {v}.", "{s} puts on a {v}.", "you know {o} by the {v}."),
        values=_words("""scarf hat jacket cape sweater belt necklace raincoat vest crown bracelet helmet mask badge
            backpack ribbon bandana turban poncho cardigan tunic wig feather medal"""),
    ),
    Relation(
        name="friend",
        templates=("{s} is a friend of {v}.", "{s} often visits {v}.", "{p} best friend is {v}."),
        values=(),
    ),
    Relation(
        name="pet",
        templates=("{s} has a pet {v}.", "{s} takes care of a {v}.", "{p} pet is a {v}."),
        values=_words("""parrot rabbit turtle hamster pony monkey lizard kitten goldfish snake mouse goose beetle ferret
            hedgehog peacock donkey spider pigeon canary lobster llama raccoon squirrel"""),
    ),
    Relation(
        name="sport",
        templates=("{s} is good at {v}.", "{s} trains for {v}.", "{p} sport is {v}."),
        values=_words("""football tennis hockey chess golf cricket baseball rugby boxing skiing fencing bowling archery
            surfing judo darts volleyball badminton karate rowing cycling swimming climbing wrestling"""),
    ),
    Relation(
        name="music",
        templates=("{s} practices the {v}.", "{s} has lessons on the {v}.", "{p} instrument is the {v}."),
        values=_words("""violin guitar piano flute trumpet cello banjo harp organ drums clarinet accordion harmonica
            mandolin saxophone trombone tuba bagpipe ukulele tambourine xylophone cymbal oboe bassoon"""),
    ),
    Relation(
        name="travel",
        templates=("{s} wants to visit {v}.", "{s} dreams of {v}.", "{p} next trip is to {v}."),
        values=_words("""egypt japan brazil canada norway india mexico kenya peru iceland greece poland spain china cuba
            chile finland scotland morocco nepal sweden hungary vietnam portugal"""),
    ),
)

_WEATHERS = _words("sunny cold windy quiet foggy warm bright gray mild frosty cloudy lovely dull golden hazy gloomy")
_TIMES = _words("morning evening monday friday sunday afternoon tuesday thursday wednesday saturday")
_WALKS = _words("walks goes runs comes hurries wanders strolls marches")
_WAYS = phrases("""down the road, up the hill, along the path, to the park, through the gate, over the bridge, past the
    shop, into the yard, across the square, around the corner, toward the village, beside the canal""")
_MOODS = phrases("""
    {s} is happy today., {s} has a new idea., {s} sings a song., {s} feels very good., {s} tells a story.,
    {s} is late again., {s} hums a tune., {s} smiles at everyone., {s} is proud of it., {s} whispers a secret.,
    {s} remembers a joke., {s} is hopeful this year., {s} thinks about tomorrow., {s} wonders about the future.,
    {s} enjoys every minute., {s} is curious about everything., {s} makes a serious plan., {s} greets a stranger.,
    {s} avoids the noise., {s} prefers silence.
""")

NOT_MADE_UP = frozenset(
    _words("""
    apples apply barked barley barmen bashes basked basses bridle canker canted cantor docked docket farced farces
    folder foiled follow forced forces forged fowler harked harped harper harrow helped helper hollow horned jumper
    junker marked marker marlin marten masted mealed misses misted monies parser popped pupped raider railed railer
    raised rasped resins ribbed rocked rocker sailed sailer seldom seller selves sudden sunder sunken sunset tailed
    turban turner turret wailed wailer waited waiver walled wallet wallow walker walrus wasted winced winces winked
    winker winter writer canary canned dances danger disked""")
)
"""English words that swapping the ends of two words can make, though a world may lack them; never used as non-words."""

_NOUNS = """boy/boys girl/girls dog/dogs cat/cats bird/birds horse/horses cow/cows frog/frogs fox/foxes bear/bears
    duck/ducks lamb/lambs wolf/wolves rat/rats hen/hens crab/crabs"""
_VERBS = """jump/jumps/jumped dance/dances/danced rest/rests/rested walk/walks/walked play/plays/played
    wait/waits/waited hide/hides/hid run/runs/ran cough/coughs/coughed kneel/kneels/knelt shout/shouts/shouted
    limp/limps/limped crawl/crawls/crawled faint/faints/fainted snore/snores/snored stumble/stumbles/stumbled"""
_ADJECTIVES = _words("small brown old young angry happy big white clever hungry tiny black brave lonely gentle wild")
_SETTINGS = phrases("here, all day, in the sun, by the tree, near the wall, under the moon, behind the barn, at noon")


def _nouns(count: int) -> tuple[tuple[str, str], ...]:
    rows = [entry.split("/") for entry in _NOUNS.split()[:count]]
    return tuple((singular, plural) for singular, plural in rows)


def _verbs(count: int) -> tuple[tuple[str, str, str], ...]:
    rows = [entry.split("/") for entry in _VERBS.split()[:count]]
    return tuple((base, third, past) for base, third, past in rows)


def _lexicon(*, scenery: int, moods: int, intros: int, topics: tuple[int, int, int], events: int) -> Lexicon:
    """The first entries of every list; names and values of facts are chosen per world, not here."""
    return Lexicon(
        women=_WOMEN,
        men=_MEN,
        relations=RELATIONS,
        weathers=_WEATHERS[:intros],
        times=_TIMES[: intros * 3 // 4],
        walks=_WALKS[: intros // 2],
        ways=_WAYS[:intros],
        moods=_MOODS[:moods],
        topics=first_topics(*topics),
        events=first_events(events),
        nouns=_nouns(scenery),
        verbs=_verbs(scenery),
        adjectives=_ADJECTIVES[:scenery],
        settings=_SETTINGS[: scenery // 2 + 1],
    )


LEXICONS = {
    "small": _lexicon(scenery=7, moods=5, intros=8, topics=(6, 2, 5), events=8),
    "large": _lexicon(scenery=16, moods=20, intros=16, topics=(30, 3, 10), events=38),
}
"""Word lists by name."""
