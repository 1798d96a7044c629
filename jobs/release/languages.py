"""Tags of languages (BCP 47), checked by their shape and by the two-letter codes of ISO 639-1."""

import difflib
import re

from gristmill.records.spec import nearest

SPECIAL = ("code", "multilingual")  # of dataset hubs
TAG = re.compile(r"([a-z]{2,3})(-[a-z]{4})?(-(?:[a-z]{2}|\d{3}))?((?:-(?:[a-z\d]{5,8}|\d[a-z\d]{3}))*)", re.IGNORECASE)
CODES = {  # code: name, of ISO 639-1
    code: name
    for code, _, name in (
        entry.partition(" ")
        for entry in """
aa Afar;ab Abkhazian;ae Avestan;af Afrikaans;ak Akan;am Amharic;an Aragonese;ar Arabic;as Assamese;av Avaric;ay Aymara;
az Azerbaijani;ba Bashkir;be Belarusian;bg Bulgarian;bh Bihari;bi Bislama;bm Bambara;bn Bengali;bo Tibetan;br Breton;
bs Bosnian;ca Catalan;ce Chechen;ch Chamorro;co Corsican;cr Cree;cs Czech;cu Church Slavic;cv Chuvash;cy Welsh;
da Danish;de German;dv Divehi;dz Dzongkha;ee Ewe;el Greek;en English;eo Esperanto;es Spanish;et Estonian;eu Basque;
fa Persian;ff Fulah;fi Finnish;fj Fijian;fo Faroese;fr French;fy Western Frisian;ga Irish;gd Gaelic;gl Galician;
gn Guarani;gu Gujarati;gv Manx;ha Hausa;he Hebrew;hi Hindi;ho Hiri Motu;hr Croatian;ht Haitian;hu Hungarian;
hy Armenian;hz Herero;ia Interlingua;id Indonesian;ie Interlingue;ig Igbo;ii Sichuan Yi;ik Inupiaq;io Ido;
is Icelandic;it Italian;iu Inuktitut;ja Japanese;jv Javanese;ka Georgian;kg Kongo;ki Kikuyu;kj Kuanyama;kk Kazakh;
kl Kalaallisut;km Khmer;kn Kannada;ko Korean;kr Kanuri;ks Kashmiri;ku Kurdish;kv Komi;kw Cornish;ky Kirghiz;la Latin;
lb Luxembourgish;lg Ganda;li Limburgish;ln Lingala;lo Lao;lt Lithuanian;lu Luba-Katanga;lv Latvian;mg Malagasy;
mh Marshallese;mi Maori;mk Macedonian;ml Malayalam;mn Mongolian;mr Marathi;ms Malay;mt Maltese;my Burmese;na Nauru;
nb Norwegian Bokmål;nd North Ndebele;ne Nepali;ng Ndonga;nl Dutch;nn Norwegian Nynorsk;no Norwegian;nr South Ndebele;
nv Navajo;ny Chichewa;oc Occitan;oj Ojibwa;om Oromo;or Oriya;os Ossetian;pa Punjabi;pi Pali;pl Polish;ps Pashto;
pt Portuguese;qu Quechua;rm Romansh;rn Rundi;ro Romanian;ru Russian;rw Kinyarwanda;sa Sanskrit;sc Sardinian;sd Sindhi;
se Northern Sami;sg Sango;sh Serbo-Croatian;si Sinhala;sk Slovak;sl Slovenian;sm Samoan;sn Shona;so Somali;sq Albanian;
sr Serbian;ss Swati;st Southern Sotho;su Sundanese;sv Swedish;sw Swahili;ta Tamil;te Telugu;tg Tajik;th Thai;
ti Tigrinya;tk Turkmen;tl Tagalog;tn Tswana;to Tonga;tr Turkish;ts Tsonga;tt Tatar;tw Twi;ty Tahitian;ug Uighur;
uk Ukrainian;ur Urdu;uz Uzbek;ve Venda;vi Vietnamese;vo Volapük;wa Walloon;wo Wolof;xh Xhosa;yi Yiddish;yo Yoruba;
za Zhuang;zh Chinese;zu Zulu
""".replace("\n", "").split(";")
    )
}


def language_tag(text: str) -> str:
    """The tag in its usual case: "en", "zh-Hant-TW", "gsw". Raises ValueError, with the nearest code, for others."""
    if text in SPECIAL:
        return text
    match = TAG.fullmatch(text)
    if match is None or (len(match[1]) == 2 and match[1].lower() not in CODES):
        raise ValueError(f"languages: '{text}' is no language tag{_nearest(text)}")
    script, region = match[2] or "", match[3] or ""
    return match[1].lower() + script.title() + region.upper() + match[4].lower()


def _nearest(text: str) -> str:
    names = {name.lower(): code for code, name in CODES.items()}
    if close := difflib.get_close_matches(text.lower(), names, n=1, cutoff=0.75):
        return f" (did you mean '{names[close[0]]}'?)"
    hint = nearest(text.lower(), [*CODES, *SPECIAL])
    return hint if "did you mean" in hint else "; write a code of ISO 639 such as 'en', or a tag such as 'pt-BR'"
