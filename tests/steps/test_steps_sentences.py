"""Where the rule `sentence` cuts and where it does not."""

import pytest
from steps_texts import pieces_of

from reasonflux_prm.steps.rules import sentence_ends


def sentences(text):
    return [step.strip() for step in pieces_of(text, sentence_ends(text))]


@pytest.mark.parametrize(
    "one",
    [
        "We add e.g. 3 and i.e. 4, cf. Fig. 2 and Eq. (3) on pp. 5, for Dr. Fu vs. Mr. Li et al. today.",
        "It is 3.14 or 1,000.5 or 1e-5 in No. 3 of v1.2.3 at https://a.b/c.d?e=f for sure.",
        "At 5 p.m. we stop, etc. and so on, with max. value 3.",
        "John F. Kennedy and J. R. R. Tolkien met.",
        "1. Add the numbers",
        "  2. **Add** the numbers",
        "**Step 3. Add** the numbers",
        "(a). Add the numbers",
        "So 5! / 3! is n! times k! (by def.) here",
        "Let's see... I think 1 + 2 + ... + 9 is it",
        'She asked "Is it 5?" and left',
        "is it (really?) so",
        "wrapped text that goes\non in the next line\nand the next",
        "the value\nis found here",
    ],
)
def test_one_sentence(one):
    assert sentences(one) == [one.strip()]


@pytest.mark.parametrize(
    "text",
    [
        "It is 3. | Then 4.",
        "No. | That is wrong.",
        "Is it 5? | Yes! | Good.",
        "We have x = 5! | Wait. | Hmm... | So it is 6.",
        'She said "It is 5." | Then she left.',
        "It costs $5. | He pays $10. | So $15.",
        "By **this rule.** | Next one.",
        "We stop at 5 p.m. | Then we go.",
        "so it is 7. | then we add 3.",
        "The point is A. | Then B follows.",
        "n is 5\n| m is 6\n| f(x) = 3\n| sin(x) = 1\n| x = 2",
        "One,\n\n| two",
        "We get \\( x = 3. Y \\). | Then $y. Z$ follows. | Done",
        "这是第一句。| 这是第二句！| 完",
        "「好。」| 下一句",
    ],
)
def test_several_sentences(text):
    assert sentences(text.replace("| ", "").replace("|", "")) == [part.strip() for part in text.split("|")]
