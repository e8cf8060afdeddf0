"""The 48 held-out prompts of the evaluation: no training picture has these pairs of object and background in that colour.

They were fixed before the first training run.
Every prompt names an object, a background and one colour, which belongs to the object, or else to the background.
"""

# prompt | object | its colour | background | time of day
LINES = """
a blue car in the desert|car|blue|desert|
a red teapot on a wooden table|teapot|red|table|
a green apple on a pink background|apple|green|pink|
a yellow umbrella in the city at night|umbrella|yellow|city|night
a purple balloon by the sea at sunset|balloon|purple|sea|sunset
a pink car in a forest|car|pink|forest|
a white cat on a blue background|cat|white|blue|
a black dog on a yellow background|dog|black|yellow|
an orange fish on a green background|fish|orange|green|
a green frog in the mountains|frog|green|mountains|
a red house in a meadow|house|red|hills|
a blue tent in the mountains at night|tent|blue|mountains|night
a brown bear in the snow, mountains|bear|brown|mountains|
a yellow butterfly in a forest|butterfly|yellow|forest|
a purple octopus by the sea|octopus|purple|sea|
a pink pig in the desert at sunset|pig|pink|desert|sunset
a red tractor in a city|tractor|red|city|
a green motorcycle in the desert|motorcycle|green|desert|
a blue book on a wooden table|book|blue|table|
a yellow candle on a purple background|candle|yellow|purple|
a red rose on a white background|rose|red|white|
a purple tulip in a meadow|tulip|purple|hills|
a green cactus in a city at sunset|cactus|green|city|sunset
an orange pumpkin on grass|pumpkin|orange|grass|
a pink doughnut on a cyan background|doughnut|pink|cyan|
a blue guitar on an orange background|guitar|blue|orange|
a red key on a gray background|key|red|gray|
a green gift on a red background|gift|green|red|
a white owl in a forest at night|owl|white|forest|night
a yellow airplane in the mountains at sunset|airplane|yellow|mountains|sunset
a blue whale in the sea|whale|blue|sea|
a red crab in the desert|crab|red|desert|
a purple mushroom in a forest at night|mushroom|purple|forest|night
a black umbrella in a meadow|umbrella|black|hills|
a green dinosaur in a city|dinosaur|green|city|
an orange cat in front of a brick wall|cat|orange|brick|
a pink ice cream on a blue background|ice cream|pink|blue|
a blue backpack on grass|backpack|blue|grass|
a penguin on a red background|penguin||red|
a panda on a purple background|panda||purple|
a castle on a pink background|castle||pink|
a rocket on a green background|rocket||green|
a cup of coffee on a cyan background|cup of coffee||cyan|
a bicycle on a yellow background|bicycle||yellow|
an elephant on an orange background|elephant||orange|
a snowman on a brown background|snowman||brown|
a pizza on a white background|pizza||white|
a robot on a black background|robot||black|
"""
FIELDS = ("prompt", "object", "hue", "background", "time")
PROMPTS = [dict(zip(FIELDS, line.split("|"))) for line in LINES.strip().splitlines()]
_HELD = {(p["object"], p["hue"] or None, p["background"]) for p in PROMPTS}


def held_out(a):
    """Whether a composition's object, colour and background are those of a prompt of the evaluation."""
    return any((a[name], a["hue"], a[k]) in _HELD for name in ("object", "object2") for k in ("terrain", "bg", "texture"))
