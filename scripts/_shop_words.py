"""Which words describe a made-up shop's stock? Departments, nouns, adjectives, and names.

The nouns are everyday ones. Names of brands and series are put together from syllables, so that
there are as many as a catalogue needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


def _listed(text: str) -> list[str]:
    return text.split(", ")


# Department → category → nouns. The first of each are what the shop has most of.
STOCK: Mapping[str, Mapping[str, str]] = {
    "Fashion": {
        "Shoes": "sneakers, running shoes, ankle boots, sandals, slippers, rain boots, loafers",
        "Tops": "t-shirt, shirt, blouse, pullover, hoodie, cardigan, tank top",
        "Bottoms": "jeans, trousers, shorts, leggings, skirt, chinos",
        "Outerwear": "rain jacket, winter coat, parka, vest, down jacket, windbreaker",
        "Accessories": "belt, scarf, beanie, gloves, sunglasses, umbrella, wallet",
        "Bags": "backpack, handbag, tote bag, shoulder bag, suitcase, belt bag"},
    "Home": {
        "Bedding": "duvet cover, pillow, fitted sheet, duvet, mattress topper, throw blanket",
        "Lighting": "table lamp, floor lamp, pendant lamp, light bulb, string lights, desk lamp",
        "Storage": "shoe rack, storage box, laundry basket, shelf, coat rack, drawer organiser",
        "Furniture": "office chair, bar stool, side table, bookcase, dining chair, desk, sofa bed",
        "Decoration": "vase, picture frame, wall clock, mirror, candle holder, cushion cover, rug",
        "Bath": "bath towel, shower curtain, bath mat, soap dispenser, shower head"},
    "Kitchen": {
        "Cookware": "frying pan, saucepan, wok, casserole, baking tray, grill pan",
        "Tableware": "dinner plate, mug, bowl, wine glass, cutlery set, water glass, teapot",
        "Appliances": "kettle, toaster, coffee maker, blender, hand mixer, air fryer, rice cooker",
        "Knives": "chef knife, bread knife, knife block, kitchen scissors, paring knife",
        "Food storage": "lunch box, water bottle, storage jar, thermos flask, bread bin"},
    "Electronics": {
        "Audio": "headphones, earbuds, bluetooth speaker, soundbar, microphone, record player",
        "Computers": "laptop, keyboard, mouse, monitor, webcam, usb hub, laptop stand",
        "Phones": "phone case, charging cable, power bank, wall charger, screen protector",
        "Storage media": "memory card, external drive, usb stick, solid state drive",
        "Cameras": "action camera, tripod, camera bag, lens filter, security camera",
        "Television": "television, remote control, wall mount, hdmi cable, streaming stick"},
    "Sports": {
        "Outdoor": "tent, sleeping bag, hiking boots, hiking poles, camping stove, camping chair",
        "Fitness": "yoga mat, dumbbell, resistance band, kettlebell, jump rope, foam roller",
        "Cycling": "bike helmet, bike lock, bike light, cycling gloves, bike pump, bottle cage",
        "Ball games": "football, basketball, tennis racket, badminton set, shin guards",
        "Water sports": "swim goggles, swimsuit, beach towel, snorkel set, dry bag"},
    "Garden": {
        "Tools": "garden hose, pruning shears, spade, rake, wheelbarrow, lawn mower",
        "Plants": "flower seeds, potting soil, plant pot, balcony planter, fertiliser, herb seeds",
        "Outdoor living": "garden chair, parasol, charcoal grill, fire bowl, hammock, solar lamp",
        "Watering": "watering can, sprinkler, rain barrel, hose reel, drip irrigation kit"},
    "Toys": {
        "Building": "building blocks, wooden blocks, marble run, model kit, magnetic tiles",
        "Games": "board game, card game, jigsaw puzzle, dice game, memory game",
        "Dolls": "doll, doll house, plush bear, hand puppet, plush rabbit, doll clothes",
        "Vehicles": "toy car, wooden train, remote control car, toy tractor, race track",
        "Crafts": "colouring pencils, modelling clay, finger paints, bead set, sticker book"},
    "Baby": {
        "Nursery": "baby blanket, cot mobile, night light, baby monitor, changing mat",
        "Feeding": "baby bottle, bib, high chair, sippy cup, baby spoon, milk pump",
        "On the way": "baby carrier, pushchair, car seat, changing bag, rain cover",
        "Baby clothes": "bodysuit, romper, baby socks, baby hat, sleep sack"},
    "Beauty": {
        "Skin care": "face cream, hand cream, body lotion, serum, sun cream, face mask, lip balm",
        "Hair care": "shampoo, conditioner, hair dryer, hair brush, hair oil, straightener",
        "Make-up": "lipstick, mascara, foundation, eyeliner, nail polish, make-up brush",
        "Shaving": "razor, shaving foam, beard trimmer, aftershave, razor blades",
        "Oral care": "toothbrush, toothpaste, mouthwash, dental floss"},
    "Grocery": {
        "Hot drinks": "coffee beans, ground coffee, black tea, green tea, cocoa, herbal tea",
        "Snacks": "dark chocolate, biscuits, salted nuts, crisps, dried fruit, muesli bar",
        "Pantry": "olive oil, pasta, rice, tomato sauce, honey, strawberry jam, sea salt, lentils",
        "Breakfast": "muesli, oat flakes, peanut butter, granola, crispbread",
        "Cold drinks": "orange juice, lemonade, oat drink, mineral water, iced tea"},
    "Office": {
        "Writing": "ballpoint pen, fountain pen, pencil, marker, highlighter, eraser",
        "Paper": "notebook, printer paper, sticky notes, envelope, wall calendar, drawing pad",
        "Filing": "ring binder, document tray, label maker, stapler, hole punch",
        "Printing": "printer, ink cartridge, toner, laminator, photo paper"},
    "Pets": {
        "Dogs": "dog food, dog lead, dog bed, dog toy, dog bowl, dog harness",
        "Cats": "cat food, cat litter, scratching post, cat tree, cat toy, cat flap",
        "Small animals": "hay, hamster wheel, rabbit hutch, bird seed, bird feeder",
        "Aquarium": "fish food, aquarium, water filter, aquarium plant"},
    "Tools": {
        "Power tools": "cordless drill, jigsaw, sander, angle grinder, heat gun",
        "Hand tools": "screwdriver set, hammer, spirit level, pliers, tape measure, hex keys",
        "Paint": "wall paint, paint roller, brush set, masking tape, wood varnish",
        "Fixings": "screws, wall plugs, wood glue, cable ties, hooks, adhesive tape"},
}
BASE_PRICES: Mapping[str, float] = {
    "Fashion": 35.0, "Home": 30.0, "Kitchen": 25.0, "Electronics": 60.0, "Sports": 30.0,
    "Garden": 28.0, "Toys": 20.0, "Baby": 24.0, "Beauty": 11.0, "Grocery": 5.0, "Office": 9.0,
    "Pets": 15.0, "Tools": 22.0}
SIZES: Mapping[str, str] = {
    "Fashion": "S, M, L, XL, XS, XXL, 38, 39, 40, 41, 42, 43, 44, 36, 37, kids",
    "Home": "40 cm, 60 cm, 80 cm, set of 2, 120 cm, 140 x 200, 160 x 230, 30 cm, set of 4",
    "Kitchen": "set of 4, 24 cm, 28 cm, set of 6, 20 cm, 1 l, 1.5 l, 500 ml, 2 l, set of 12",
    "Electronics": "2 m, 1 m, 64 gb, 128 gb, 256 gb, 1 tb, 24 inch, 27 inch, 13 inch, 20 w, 65 w",
    "Sports": "M, L, S, XL, 2 kg, 5 kg, 10 kg, 500 ml, 2 persons, 3 persons, size 5",
    "Garden": "10 l, 20 m, 25 m, 5 l, 30 cm, 40 cm, 50 l, set of 3, 2.5 kg",
    "Toys": "100 pieces, 500 pieces, 1000 pieces, 24 pieces, set of 2, from 3 years, from 6 years",
    "Baby": "size 62, size 68, size 74, size 80, pack of 3, 240 ml, 120 ml, pack of 2",
    "Beauty": "50 ml, 100 ml, 200 ml, 250 ml, 30 ml, 400 ml, 75 ml, pack of 2",
    "Grocery": "500 g, 250 g, 1 kg, 1 l, 100 g, 750 ml, 6 x 1 l, 200 g, pack of 12",
    "Office": "A4, A5, pack of 10, pack of 50, 500 sheets, A3, pack of 5, pack of 100",
    "Pets": "2 kg, 400 g, 10 kg, M, L, S, 12 x 85 g, 15 kg, 5 l",
    "Tools": "18 v, pack of 100, set of 6, 2.5 l, 5 m, pack of 50, 10 l, 8 mm, 6 mm"}
ADJECTIVES = _listed(
    "classic, soft, light, compact, modern, premium, large, small, organic, waterproof, "
    "foldable, slim, natural, sturdy, portable, warm, eco, basic, vintage, elegant, ergonomic, "
    "deluxe, mini, professional, durable, extra strong, non-slip, handmade, adjustable, "
    "quick-drying, breathable, recycled, travel, family, silent, round, square, fresh, mild, "
    "pure, bright, striped, checked, floral, printed, plain, wide, narrow, long, short, padded, "
    "quilted, woven, knitted, ribbed, matt, glossy, transparent, magnetic, wireless, smart, "
    "universal, refillable, reusable, washable, vegan, unscented, scented, crisp, rustic, "
    "nordic, urban, retro, festive, seasonal, stackable, extendable, telescopic, hanging, "
    "standing, double, triple, flat, deep, tall")
COLOURS = _listed(
    "black, white, grey, blue, navy, red, green, beige, brown, pink, silver, anthracite, "
    "yellow, oak, turquoise, orange, olive, bamboo, stainless steel, cotton, lilac, gold, "
    "linen, walnut, burgundy, cream, leather, wool, mint, copper, ivory, glass, sand, petrol, "
    "coral, ceramic, rust, mustard, felt, marble")

_STARTS = _listed(
    "bal, bel, bor, cal, cor, dal, del, dor, el, fal, fen, gal, gor, hal, hel, il, jor, kal, "
    "kel, lan, lor, mal, mer, mor, nor, or, pal, pel, quin, ras, sel, sol, tal, tor, ul, val, "
    "ver, vol, wes, yor, zel")
_MIDDLES = _listed(
    "a, e, i, o, u, ama, ane, ari, edo, eli, eno, era, ila, imo, iro, ola, omi, oni, ora, uma, "
    "une, uri")
_ENDS = _listed(
    "ba, dan, den, don, fin, ka, kin, la, len, lin, lo, lum, ma, mar, mo, na, nel, no, ra, ren, "
    "ria, rin, ro, sa, sen, ta, tel, tex, tis, to, va, van, vel, vo, za, zen, zo")
MOST_NAMES = len(_STARTS) * len(_MIDDLES) * len(_ENDS)


@dataclass(frozen=True, slots=True)
class Kinds:
    """The kinds of product, one a noun; ``category`` and ``department`` hold each one's names."""

    noun: list[str]
    category: list[str]
    department: list[str]


def kinds() -> Kinds:
    """Return every noun of the stock with where it stands: each category's first noun, then each
    one's second, and so on, as a shop has most of the first."""
    found = sorted(((place, noun, category, department)
                    for department, categories in STOCK.items()
                    for category, nouns in categories.items()
                    for place, noun in enumerate(_listed(nouns))), key=lambda kind: kind[0])
    return Kinds([noun for _, noun, _, _ in found], [category for _, _, category, _ in found],
                 [department for _, _, _, department in found])


def names(count: int, rng: np.random.Generator) -> list[str]:
    """Return ``count`` different made-up names, at most ``MOST_NAMES``, in small letters."""
    found = []
    for number in rng.choice(MOST_NAMES, count, replace=False).tolist():
        number, end = divmod(number, len(_ENDS))
        start, middle = divmod(number, len(_MIDDLES))
        found.append(_STARTS[start] + _MIDDLES[middle] + _ENDS[end])
    return found
