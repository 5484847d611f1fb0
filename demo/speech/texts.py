"""Sentences to speak. English comes from templates over word lists; other languages are short written lists.

All of it was written for this project. Held-out sentences stand in split.json and are never returned here.
"""

import random

_NAMES = """Anna Ben Bob Carla Chloe David Emma Felix Fiona George Grace Hugo Ivy Jack Joan Kofi Lena Leo Lucy Maria
Marcus Mia Mohammed Naomi Noah Olivia Omar Pablo Paul Phoebe Priya Rose Ruth Sam Sofia Tom Uma Vera Victor Wendy
Yasmin Yuki Zoe""".split()
_PLACES = """Boston Brazil Berlin Cairo Chicago Cuba Dublin Ghana Geneva India Japan Kenya Lima London Madrid Mumbai
Norway Oslo Paris Peru Prague Poland Rome Samoa Seoul Sweden Tokyo Vienna Wales Zurich""".split()
_PEOPLE = """mother father brother sister neighbour teacher doctor farmer pilot painter baker gardener mayor judge
waiter plumber singer student lawyer captain nephew grandma uncle cousin boss""".split()
_ADJECTIVES = """big small blue yellow warm cold brave calm bright broken curious deep early empty famous fresh gentle
golden happy heavy huge important jolly loud lovely modern narrow noisy old open patient perfect plain proud purple
quick quiet rapid rough round shiny short simple slow smooth soft strange sweet tall tiny useful vivid wide wild
wooden wonderful young fabulous available impossible popular""".split()
_NOUNS = """apple bag balloon bamboo basket beach bee bell bicycle board boat book bottle box bread bridge brush
bubble butter button cabbage camel camera car carpet castle chair cheese church cloud coffee computer cup door dream
drum egg elephant engine farm feather film fire fish flower fog forest fork garden gate giraffe glove goose guitar
hammer hat hill honey horse house island jacket job jug juice jungle key kitchen ladder lamp leaf lemon letter lion
lobby map market measure melon mirror money monkey moon mountain mouse mouth museum mushroom music number ocean
office olive onion orange oven paper park pencil pepper phone photo piano picture pillow pipe plum pocket poem pond
potato problem program puppet puzzle rabbit radio rain ring river road robot roof room rope rubber sandwich school
shadow sheep ship shoe shop shower snow soap sofa song soup spoon stamp station stone storm street sugar summer sun
table taxi teapot television theatre thumb ticket tiger tomato tooth tower town toy train tree umbrella valley van
vase village violin voice wall watch water wave weather web whale wheel whistle window winter wolf wood word world
yard zebra zoo""".split()
_PLURALS = """apples maps bees bells books boxes cups doors eggs farms films forks gloves houses jobs keys lamps
leaves lemons letters moons mushrooms numbers olives pages papers pipes plums poems problems rivers robots rooms
shoes shops songs spoons stamps stones streets thumbs towers trees vans villages voices waves wheels windows words
papayas bamboo poles pumps bulbs""".split()
_VERBS = """admires borrows brings builds buys carries checks chooses cleans collects describes draws enjoys explains
finds fixes follows forgets gives grabs hears imagines improves keeps knows leaves likes loves makes measures moves
needs notices observes opens orders paints paints picks places prefers prepares promises pulls pushes reaches
remembers removes repairs saves sees sells sends shows shuffles skips swaps takes touches uses visits wants washes
watches welcomes wraps""".split()
_PAST = """admired borrowed brought built bought carried checked chose described drew enjoyed explained found fixed
followed forgot imagined improved kept left loved made measured moved noticed opened painted picked prepared promised
pulled pushed remembered repaired saved saw showed swapped thought up used visited watched welcomed wrapped""".split()
_ADVERBS = """almost always already barely briefly calmly carefully certainly clearly early easily finally gladly
happily hardly maybe never often politely probably proudly quickly quietly rarely really slowly smoothly sometimes
soon suddenly together usually very warmly wisely""".split()
_TIMES = """today tomorrow tonight this morning|yesterday evening|next week|on Monday|on Friday afternoon|in February
|before lunch|after the movie|at half past nine|by the end of June|every summer|in about five minutes|once a month
|at the moment|above all|from time to time|now and then""".replace("\n", "").split("|")
_WHERE = """in the garden|by the river|near the bridge|above the shop|behind the museum|on the beach|at the farm|
across the pond|under the old oak|in front of the house|between two hills|on top of the wardrobe|beyond the village|
along the wall|at home|upstairs|in the middle of the room|from the balcony""".replace("\n", "").split("|")
_MONTHS = """January February March April May June July August September October November December""".split()
_FILLERS = ["Well,", "Um,", "You know,", "Okay,", "Oh,", "Hmm,", "Actually,", "By the way,", "So,", "Wow,", "Yes,", "No,"]

_TEMPLATES = (
    "The {adj} {noun} {where} {verb} the {noun}.",
    "{name} {verb} a {adj} {noun} {when}.",
    "My {person} {past} {plural} and {plural} {where}.",
    "Why does {name} always {base} the {noun}?",
    "Is the {noun} {adj}, or is it {adj}?",
    "{filler} I {adv} {past} that {noun} {where}.",
    "{filler} the {person} from {place} {past} {number} {plural}.",
    "Did you know that {name} {past} a {noun} in {place}?",
    "We {adv} move the {adj} {noun} {where}, but not {when}.",
    "{name} and {name} {past} the {noun} {adv}, and the {person} {past} it too.",
    "Bob's {person} put {number} {plural} on a {adj} {noun}.",
    "On the {ordinal} of {month}, {name} {past} {place}.",
    "It costs {number} dollars and {small} cents, {name}.",
    "Call me on {digits}, please, {when}.",
    "Whose {noun} is {where}?",
    "Maybe the {noun} was {adj}. Maybe not.",
    "Please bring {plural}, {plural} and one {adj} {noun} {when}.",
    "Above the {noun} hung a {adj} {noun}; below it, {plural}.",
    "How many {plural} would fit {where}?",
    "{adj}, {adj}, {adj}! What a {noun}!",
    "The {person} said: never {base} a {noun} {when}.",
    "If {name} {verb} the {noun}, who will {base} the {plural}?",
    "I am {adv} {adj} when you {base} my {noun}.",
    "Five {adj} {plural} have fallen off the {noun}.",
    "Both of them {past} the {noun}, but {name} {past} it first.",
    "You would prefer {plural} to a {noun}, wouldn't you?",
    "{name}, who lives in {place}, {verb} {adj} {plural}.",
    "{number} plus {small} makes a {adj} number.",
    "From {place} to {place} it is about {number} miles.",
    "That's {adj}. Thank you very much, {name}.",
)
_BASES = """borrow bring build buy carry choose draw enjoy follow grab improve keep leave love make measure move open
paint prefer prepare pull push remember repair save show swap use visit watch welcome wrap""".split()


def english(rng: random.Random) -> str:
    """One English sentence: statements, questions, names, dates and numbers."""

    def ordinal() -> str:
        number = rng.randint(1, 28)
        ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10 if number not in (11, 12, 13) else 0, "th")
        return f"{number}{ending}"

    choices = {
        "adj": _ADJECTIVES, "noun": _NOUNS, "plural": _PLURALS, "verb": _VERBS, "past": _PAST, "adv": _ADVERBS,
        "name": _NAMES, "place": _PLACES, "person": _PEOPLE, "when": _TIMES, "where": _WHERE, "month": _MONTHS,
        "filler": _FILLERS, "base": _BASES,
    }  # fmt: skip
    makers = {
        "ordinal": ordinal,
        "number": lambda: str(rng.choice([rng.randint(2, 20), rng.randint(21, 999), rng.randint(1000, 9999)])),
        "small": lambda: str(rng.randint(2, 99)),
        "digits": lambda: ", ".join(" ".join(str(rng.randint(0, 9)) for _ in range(3)) for _ in range(2)),
    }
    out = []
    for piece in rng.choice(_TEMPLATES).split("{"):
        key, brace, rest = piece.partition("}")
        out.append((makers[key]() if key in makers else rng.choice(choices[key])) + rest if brace else piece)
    text = "".join(out)
    return text[0].upper() + text[1:]


_LISTS: dict[str, str] = {
    "de": """Guten Morgen, wie geht es Ihnen heute?|Mein Bruder baut ein Boot aus Pappe und Bambus.|Im Februar war der
Bodensee fast überall zugefroren.|Möchten Sie Butter, Pflaumenmus oder Honig aufs Brot?|Fünf flinke Füchse fuhren
früh nach Frankfurt.|Das Museum öffnet um halb zehn und schließt um sechs.|Wo bleibt bloß der Bus nach Bamberg?|Über
dem Ufer schwebte ein schöner roter Ballon.|Oma kocht Suppe, und Opa pflückt Äpfel im Garten.|Zweiundvierzig Schüler
üben jeden Abend auf der Bühne.|Bitte bringen Sie mir noch ein Glas Wasser.|Warum lachst du, wenn ich singe?|Heute
Abend wollen wir am Wasser spazieren gehen.|Die kluge Eule wohnt im alten Turm und schläft am Tag.|Hm, vielleicht
komme ich morgen, vielleicht auch nicht.|Eins, zwei, drei, vier, fünf, sechs, sieben.""",
    "es": """Buenos días, ¿cómo está usted?|Mi abuela prepara una sopa de pimientos y papas.|El barco blanco vuelve al
puerto por la noche.|¿Dónde pusiste el mapa de Bolivia?|Mañana vamos a ver una película muy buena.|Pablo compró nueve
plumas y un cuaderno amarillo.|Me gusta pasear bajo la lluvia en primavera.|La profesora habla despacio para que todos
entiendan.|Uno, dos, tres, cuatro, cinco, seis, siete, ocho.|Su familia vive en un pueblo pequeño junto al mar.|¡Qué
bonito es el jardín de tu vecino!|Creo que hubo un problema con el billete de avión.|Siempre bebemos agua fresca
después de jugar al fútbol.|Hoy hace mucho viento y el cielo está nublado.""",
    "fr": """Bonjour, comment allez-vous aujourd'hui ?|Mon frère a oublié son parapluie bleu dans le bus.|Il pleut
souvent à Brest pendant l'hiver.|Voulez-vous un peu de pain avec du beurre ?|La petite fille ramasse des pommes sous
le pommier.|Nous avons vu un film formidable hier soir.|Un, deux, trois, quatre, cinq, six, sept, huit.|Le bateau
blanc revient au port à la tombée de la nuit.|Où avez-vous mis les clés de la voiture ?|Cette œuvre est connue dans
le monde entier.|Je voudrais bien une chambre avec vue sur la mer.|Ma voisine joue du piano tous les mercredis.|Euh,
je ne sais pas, peut-être demain matin.|Le vieux moulin tourne doucement au bord du fleuve.""",
    "it": """Buongiorno a tutti, come state oggi?|Il nonno pulisce la barca prima della partenza.|Domani andiamo al mare
con i nostri amici.|Vuoi un po' di pane con burro e marmellata?|Uno, due, tre, quattro, cinque, sei, sette, otto.|La
maestra parla piano, ma tutti capiscono bene.|Che bel giardino ha la tua vicina di casa!|Forse arriveremo dopo mezzanotte,
se parte il treno.|Il gatto dorme sopra il vecchio divano rosso.|Ho comprato due bottiglie di vino bianco al mercato.
|Dove hai messo le chiavi dell'automobile?|In febbraio fa freddo e spesso nevica sui monti.|Giulia suona il pianoforte
ogni giovedì pomeriggio.|Quanto costa questa camicia azzurra?""",
    "pt": """Bom dia, como você está hoje?|Minha mãe comprou pão, manteiga e um bolo de banana.|O barco azul voltou para
o porto à noite.|Onde você deixou o mapa da cidade?|Amanhã vamos ao museu com os primos do Paulo.|Um, dois, três,
quatro, cinco, seis, sete, oito.|A professora fala devagar para todo mundo entender.|Que bonito jardim tem o seu
vizinho!|Não sei se vai chover, mas levo o guarda-chuva.|Eu gosto muito de ouvir música brasileira.|Os meninos
brincam na praia durante o verão.|Preciso de uma passagem para São Paulo, por favor.""",
    "cmn": """你好，今天天气怎么样？|我爸爸买了八个苹果和一瓶牛奶。|请问，博物馆几点开门？|一二三四五六七八九十。|妹妹不喜欢跑步，
可是她喜欢跳舞。|我们明天坐飞机去北京看朋友。|他把地图放在桌子上面了。|这本书非常有意思，你也可以看看。|外面下雨了，别忘了
带雨伞。|老师慢慢地说，大家都明白了。|你要喝茶还是喝咖啡？|春天的时候，公园里开满了花。|奶奶每天晚上给我们讲故事。|祝你
生日快乐，万事如意！|我不知道，也许下个星期吧。|房子旁边有一条小河。""",
    "ru": """Добрый день, как ваши дела?|Мама купила хлеб, масло и большой арбуз.|Папа помогает брату чинить велосипед.
|Где вы положили карту города?|Завтра утром мы поедем на море.|Один, два, три, четыре, пять, шесть, семь, восемь.|Белый
пароход возвращается в порт поздно вечером.|Учитель говорит медленно, чтобы все поняли.|Какой красивый сад у вашего
соседа!|Возможно, будет дождь, возьми с собой зонт.|Бабушка варит вкусный борщ по воскресеньям.|Я очень люблю слушать
музыку и гулять в парке.""",
    "pl": """Dzień dobry, jak się pan miewa?|Mama kupiła chleb, masło i pomidory.|Gdzie położyłeś mapę miasta?|Jutro
pojedziemy pociągiem do Poznania.|Biały statek powoli wpływa do portu.|Raz, dwa, trzy, cztery, pięć, sześć, siedem.
|Babcia opowiada wnukom bajkę o smoku.|Proszę o bilet i filiżankę herbaty.|Może będzie padać, weź parasol.|Nasz sąsiad
ma piękny ogród pełen kwiatów.""",
    "sv": """God morgon, hur mår du i dag?|Min bror bygger en båt av bambu och papper.|Var har du lagt kartan över staden?
|I morgon åker vi buss till havet.|Ett, två, tre, fyra, fem, sex, sju, åtta.|Mormor bakar bullar med smör och kanel.
|Det regnar ofta på våren, ta med ett paraply.|Den vita båten kom hem sent på kvällen.""",
    "tr": """Günaydın, bugün nasılsınız?|Annem pazardan ekmek, peynir ve bir kavun aldı.|Müze saat dokuzda açılıyor.|Yarın
büyükbabamla balık tutmaya gideceğiz.|Bir, iki, üç, dört, beş, altı, yedi, sekiz.|Şehrin haritasını nereye koydun?
|Belki yağmur yağar, şemsiyeni unutma.|Küçük köpek bahçede mutlu mutlu koşuyor.""",
    "ja": """おはようございます、おげんきですか。|ははがパンとバターをかいました。|あしたバスでうみへいきます。|いち、に、さん、
し、ご、ろく、しち、はち。|ちずはどこですか。|あめがふるかもしれません。|ぼくはピアノをひくのがすきです。|ふゆのやまは
ほんとうにさむいです。""",
    "hi": """नमस्ते, आप कैसे हैं?|मेरी माँ ने बाज़ार से फल और सब्ज़ी ख़रीदी।|कल हम बस से पहाड़ पर जाएँगे।|एक, दो, तीन, चार, पाँच, छह, सात।
|क्या आप मुझे थोड़ा पानी देंगे?|यह किताब बहुत अच्छी है।|मेरा भाई बाग़ में फूल लगाता है।""",
    "id": """Selamat pagi, apa kabar?|Ibu membeli pisang, mangga dan sebuah semangka.|Besok kami pergi ke pantai naik bus.
|Satu, dua, tiga, empat, lima, enam, tujuh.|Di mana kamu menyimpan peta kota?|Mungkin nanti sore akan hujan, bawalah
payung.|Bapak suka membaca buku di bawah pohon mangga.""",
    "cs": """Dobrý den, jak se máte?|Maminka koupila chleba, máslo a pomeranče.|Zítra pojedeme autobusem k babičce.|Kde máš
mapu města?|Bílá loď připlula do přístavu pozdě večer.|Jeden, dva, tři, čtyři, pět, šest, sedm, osm.|Možná bude pršet,
vezmi si deštník.|Pavel hraje každý pátek na klavír.|Náš soused má velmi pěknou zahradu.|Prosím vás, kolik stojí ta
modrá košile?|V únoru bývá na horách hodně sněhu.|Učitelka mluví pomalu, aby všichni rozuměli.""",
    "fi": """Hyvää päivää, mitä teille kuuluu?|Äiti osti leipää, voita ja punaisia omenoita.|Huomenna matkustamme bussilla
meren rannalle.|Missä kaupungin kartta on?|Yksi, kaksi, kolme, neljä, viisi, kuusi, seitsemän.|Ehkä illalla sataa, ota
sateenvarjo mukaan.|Vanha mylly seisoo hiljaa joen varrella.|Mummo keittää hyvää puuroa joka aamu.|Pieni koira juoksee
iloisesti pihalla.|Opettaja puhuu hitaasti ja selvästi.""",
    "ca": """Bon dia, com esteu avui?|La mare ha comprat pa, formatge i una ampolla de vi.|On has posat el mapa de la ciutat?
|Demà anirem a la platja amb autobús.|Un, dos, tres, quatre, cinc, sis, set, vuit.|Potser plourà, agafa el paraigua.
|El vaixell blanc torna al port al vespre.|La mestra parla a poc a poc.""",
}


def sentences(language: str) -> list[str]:
    """The written list of a language other than English. Raises KeyError for a language without one."""
    joiner = "" if language in ("cmn", "ja") else " "
    return [joiner.join(text.split("\n")).strip() for text in _LISTS[language].split("|")]


def take(language: str, rng: random.Random) -> str:
    """A sentence in `language`; now and then two in one breath for the written lists."""
    if language == "en":
        return english(rng)
    pool = sentences(language)
    return " ".join(rng.sample(pool, 2)) if rng.random() < 0.4 else rng.choice(pool)
