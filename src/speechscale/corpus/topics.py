"""Topics and events of the storyworld: the text of stories that is not about facts.

Enters: nothing. Leaves: lists of `Topic` and `Event`, of which a lexicon takes the head.
The one decision worth knowing: the lists are plain text, one topic or event per entry, so that adding one is adding a
line; people and verb phrases of a topic combine freely, so they must make sense in every combination.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A topic: where it happens, who is there (nouns), what they do (verb phrases, third person singular)."""

    name: str
    place: str
    people: tuple[str, ...]
    actions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A cause, its effect, and what follows the effect."""

    cause: str
    effect: str
    remedy: str


def phrases(text: str) -> tuple[str, ...]:
    """Split at commas. Example: "all day, here" -> ("all day", "here")"""
    return tuple(" ".join(phrase.split()) for phrase in text.split(",") if phrase.strip())


# name | place | people | actions
_TOPICS = """
market | at the market | seller, customer, trader | weighs the apples, counts the coins, fills the basket,
    sells the onions, praises the melons, stacks the crates, lowers the price, tastes the grapes, sweeps the stall,
    wraps the cherries
storm | in the storm | guard, shepherd, neighbor | hears the thunder, sees the lightning, shuts the shutters,
    fears the wind, ties the tent, saves the roof, lights the lantern, holds the umbrella, moves the sandbags,
    blocks the flood
kitchen | in the kitchen | cook, guest, maid | cuts the bread, heats the oven, stirs the sauce, washes the dishes,
    peels the potatoes, boils the eggs, grinds the pepper, rolls the dough, wipes the table, melts the butter
sea | on the sea | captain, sailor, diver | steers the ship, raises the sail, pulls the net, drops the anchor,
    spots the whale, repairs the mast, studies the compass, rides the waves, fights the shark, scrubs the deck
school | in the school | teacher, pupil, student | writes the answer, opens the book, cleans the board,
    reads the lesson, rings the bell, sharpens the pencil, draws the triangle, solves the sum, learns the alphabet,
    spells the word
farm | on the farm | farmer, helper, milkmaid | feeds the pigs, mends the fence, gathers the hay, digs the ditch,
    plants the corn, shears the sheep, starts the tractor, leads the bull, loads the cart, fetches the bucket
hospital | at the hospital | nurse, surgeon, patient | checks the fever, binds the wound, swallows the pill,
    measures the pulse, changes the sheets, cures the disease, signs the form, pushes the wheelchair,
    examines the throat, prepares the needle
railway | at the railway | conductor, passenger, porter | buys the ticket, carries the suitcase, waves the flag,
    misses the express, reads the timetable, boards the coach, inspects the engine, switches the tracks,
    announces the delay, unloads the freight
garden | in the garden | grandmother, visitor, botanist | waters the roses, rakes the leaves, trims the hedge,
    picks the tulips, pulls the weeds, prunes the vine, spreads the compost, seeds the lawn, smells the lilac,
    chases the snails
office | in the office | clerk, manager, secretary | types the letter, answers the telephone, prints the report,
    files the invoice, plans the meeting, seals the envelope, fixes the computer, orders the paper,
    corrects the contract, stamps the document
court | in the court | judge, witness, lawman | swears the oath, hears the charge, proves the crime, denies the theft,
    questions the suspect, reads the verdict, frees the prisoner, breaks the law, weighs the evidence, delays the trial
circus | at the circus | clown, acrobat, juggler | tames the tiger, swings the trapeze, throws the torches,
    tricks the audience, rides the elephant, wears the costume, bends the ladder, honks the horn,
    spins the plates, balances the pole
mountain | on the mountain | climber, hermit, goatherd | reaches the summit, ropes the cliff, crosses the glacier,
    maps the ridge, pitches the camp, melts the snow, dodges the avalanche, enters the cave, tests the ice,
    packs the sled
mine | in the mine | foreman, digger, engineer | drills the tunnel, hammers the rock, finds the silver,
    pushes the trolley, digs the coal, props the shaft, sifts the gravel, weighs the nugget, lowers the cage,
    pumps the mud
bank | at the bank | cashier, robber, investor | locks the vault, counts the cash, checks the account,
    pays the loan, doubles the interest, signs the check, guards the safe, hides the jewels, trusts the broker,
    cancels the debt
studio | in the studio | artist, sculptor, model | mixes the paint, carves the statue, frames the portrait,
    holds the brush, sketches the face, stretches the canvas, shapes the clay, hangs the picture, covers the easel,
    polishes the bronze
stage | on the stage | actor, dancer, director | learns the role, lifts the curtain, forgets the line,
    bows to the crowd, paints the scenery, dims the spotlight, plays the villain, rehearses the scene,
    writes the comedy, thanks the critics
wedding | at the wedding | bride, groom, priest | throws the bouquet, blesses the couple, cuts the cake,
    kisses the cheek, ties the veil, toasts the parents, signs the register, fills the champagne, rents the tuxedo,
    films the ceremony
laboratory | in the laboratory | chemist, scientist, assistant | heats the acid, mixes the powder, labels the flask,
    tests the theory, records the result, cools the liquid, weighs the crystals, proves the formula, cleans the lens,
    repeats the experiment
workshop | in the workshop | mechanic, blacksmith, apprentice | saws the plank, sands the wood, drills the hole,
    bends the wire, glues the chair, turns the screw, sharpens the axe, welds the pipe, oils the hinge, hits the nail
army | in the army | soldier, general, colonel | cleans the rifle, guards the fort, digs the trench, loads the cannon,
    obeys the order, raises the banner, drives the tank, wins the battle, signs the treaty, salutes the officer
restaurant | at the restaurant | chef, hostess, diner | reads the menu, serves the dessert, pours the wine,
    grills the steak, folds the napkins, pays the bill, leaves the tip, reserves the booth, seasons the shrimp,
    praises the recipe
forge | at the forge | smith, knight, squire | heats the iron, shapes the sword, dents the shield,
    polishes the armor, shoes the stallion, cools the blade, swings the hammer, forges the chain, tightens the bolt,
    works the bellows
orchard | in the orchard | picker, beekeeper, owner | shakes the branches, picks the peaches, fills the barrel,
    climbs the trunk, smokes the hive, counts the plums, kills the wasps, rakes the nuts, crushes the pears,
    grafts the twig
zoo | at the zoo | keeper, tourist, ranger | feeds the lion, washes the zebra, photographs the giraffe,
    fears the crocodile, calls the seals, cleans the aquarium, watches the pandas, tames the camel, weighs the hippo,
    teases the gorilla
newspaper | at the newspaper | editor, journalist, publisher | checks the headline, interviews the mayor,
    edits the article, prints the poster, doubts the rumor, quotes the source, prepares the column, sells the issue,
    uncovers the scandal, reports the election
planet | on the planet | astronaut, alien, commander | lands the shuttle, counts the moons, measures the gravity,
    studies the crater, follows the comet, repairs the antenna, leaves the orbit, records the signal,
    checks the oxygen, explores the galaxy
bakehouse | in the bakehouse | confectioner, miller, taster | kneads the mixture, sifts the flour, glazes the buns,
    sprinkles the sugar, beats the cream, tastes the vanilla, decorates the pastry, adds the yeast, chills the jelly,
    slices the pie
archive | in the archive | librarian, scholar, historian | sorts the volumes, copies the scroll, dusts the shelves,
    binds the manuscript, reads the poem, searches the catalog, translates the legend, studies the ancestors,
    writes the chapter, returns the atlas
river | on the river | ferryman, angler, rafter | rows the boat, baits the hook, catches the trout, paddles the canoe,
    crosses the rapids, hauls the rope, checks the current, inflates the raft, frees the salmon, skips the pebbles
"""

# cause | effect | remedy
_EVENTS = """
dark clouds bring heavy rain. | {s} is wet to the skin. | {s} dries by the fire.
{s} trips over a stone. | {p} knee hurts a lot. | {s} sits down to rest.
{s} loses the key. | the door stays shut. | {s} climbs in by the window.
{s} cannot sleep all night. | {s} is tired now. | {s} takes a long nap.
the clock is too slow. | {s} misses the bus. | {s} must go on foot.
{s} hides a coin. | nobody can find it. | {s} gives it back.
{s} forgets to drink water. | {p} mouth is very dry. | {s} drinks from the well.
a bee lands on {p} hand. | {s} gets a sting. | {s} cools it with ice.
the candle falls over. | the carpet burns. | {s} smothers the flames with a blanket.
the pen leaks in {p} pocket. | a blue stain spreads over {p} shirt. | {s} scrubs it with soap.
{s} drops the vase. | pieces of glass cover the floor. | {s} gets a broom.
the light goes out. | {s} cannot see a thing. | {s} lights a match.
{s} carries a heavy bag. | {p} shoulders ache. | {s} asks for help.
the sun is strong at noon. | {p} nose turns red. | {s} moves to the shade.
{s} eats too many sweets. | {p} stomach aches. | {s} takes some medicine.
{s} leaves the tap open. | water runs over the sink. | {s} mops up the puddle.
the tire hits a thorn. | the bicycle has a flat wheel. | {s} pumps in fresh air.
the wallet slips from {p} purse. | {s} cannot pay. | an honest man returns it.
{s} swims far out. | {p} arms grow weak. | a swimmer drags {o} ashore.
the elevator breaks down. | {s} takes the stairs. | {s} arrives out of breath.
{s} paints the bench. | {p} fingers are green. | {s} rubs them clean.
{s} peels a lemon. | {p} eyes sting. | {s} blinks the tears away.
the radio is too loud. | {p} ears hurt. | {s} turns a knob.
{s} walks in the snow without gloves. | {p} hands freeze. | {s} warms them over the stove.
{s} practices every single day. | {s} wins the first prize. | everybody claps.
{s} tells a terrible lie. | {p} mother is angry. | {s} says sorry.
a thief breaks the lock. | the gold is gone. | {s} calls the police.
{s} sends an invitation. | many guests arrive. | they celebrate until midnight.
{s} plants a sunflower seed. | a sprout appears in spring. | {s} gives it sunlight.
the bridge collapses. | {s} must swim across. | {s} shivers on the bank.
{s} studies hard. | {s} passes the exam. | {p} father buys a gift.
{s} breathes in some dust. | {s} sneezes three times. | {s} borrows a handkerchief.
the alarm rings at dawn. | {s} jumps out of bed. | {s} brushes {p} teeth.
the battery is empty. | the flashlight does not shine. | {s} charges it.
{s} rips {p} trousers on a nail. | there is a large gap in the cloth. | {s} sews it with thread.
{s} paddles into the reeds. | the raft is stuck in mud. | {s} pushes with a stick.
{s} meets a bear. | {s} trembles with fear. | the animal trots away.
{s} eats a rotten oyster. | {s} feels sick. | {s} stays in bed.
"""


def first_topics(count: int, people: int, actions: int) -> tuple[Topic, ...]:
    """The first topics, each with its first people and actions."""
    rows = [line.split(" | ") for line in _TOPICS.replace("\n    ", " ").strip().splitlines()]
    return tuple(
        Topic(name=name, place=place, people=phrases(who)[:people], actions=phrases(what)[:actions])
        for name, place, who, what in rows[:count]
    )


def first_events(count: int) -> tuple[Event, ...]:
    """The first events."""
    rows = [line.split(" | ") for line in _EVENTS.strip().splitlines()]
    return tuple(Event(cause=cause, effect=effect, remedy=remedy) for cause, effect, remedy in rows[:count])
