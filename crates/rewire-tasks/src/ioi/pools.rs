//! What IOI prompts are made of.

/// Sentence frames. `{FIRST}` and `{SECOND}` are the two names in order of appearance, `{S}` the subject again.
pub const TEMPLATES: [&str; 15] = [
    "When {FIRST} and {SECOND} went to the {PLACE}, {S} gave {OBJECT} to",
    "After {FIRST} and {SECOND} went to the {PLACE}, {S} gave {OBJECT} to",
    "Then, {FIRST} and {SECOND} walked to the {PLACE}. {S} gave {OBJECT} to",
    "While {FIRST} and {SECOND} were at the {PLACE}, {S} handed {OBJECT} to",
    "Once {FIRST} and {SECOND} got to the {PLACE}, {S} decided to give {OBJECT} to",
    "Today {FIRST} and {SECOND} met at the {PLACE}. {S} wanted to give {OBJECT} to",
    "Friends {FIRST} and {SECOND} found {OBJECT} at the {PLACE}. {S} gave it to",
    "Yesterday {FIRST} and {SECOND} drove to the {PLACE}, where {S} passed {OBJECT} to",
    "Before {FIRST} and {SECOND} left the {PLACE}, {S} sold {OBJECT} to",
    "As {FIRST} and {SECOND} worked at the {PLACE}, {S} showed {OBJECT} to",
    "Because {FIRST} and {SECOND} liked the {PLACE}, {S} brought {OBJECT} to",
    "Last week {FIRST} and {SECOND} spent a day at the {PLACE}. {S} lent {OBJECT} to",
    "At the {PLACE}, {FIRST} and {SECOND} sat down, and {S} offered {OBJECT} to",
    "The {PLACE} was quiet when {FIRST} and {SECOND} came in, and {S} sent {OBJECT} to",
    "Later {FIRST} and {SECOND} had lunch at the {PLACE}, and {S} threw {OBJECT} to",
];

/// Places.
pub const PLACES: [&str; 8] = ["shops", "park", "store", "school", "office", "garden", "hospital", "station"];

/// Objects, with their article.
pub const OBJECTS: [&str; 8] =
    ["the bag", "the ball", "an apple", "a drink", "a ring", "a book", "a bottle of milk", "the letter"];

/// First names that GPT-2's and Pythia's tokenizers have as one token after a space (most of them; the generator checks).
pub const NAMES: [&str; 104] = [
    "John", "Mary", "Tom", "James", "Dan", "Sid", "Martin", "Amy", "Michael", "Christopher", "Jessica", "Matthew",
    "Ashley", "Jennifer", "Joshua", "Amanda", "Daniel", "David", "Robert", "Joseph", "Andrew", "Ryan", "Brandon", "Jason",
    "Justin", "Sarah", "William", "Jonathan", "Stephanie", "Brian", "Nicole", "Nicholas", "Anthony", "Heather", "Eric",
    "Elizabeth", "Adam", "Megan", "Melissa", "Kevin", "Steven", "Thomas", "Timothy", "Christina", "Kyle", "Rachel", "Laura",
    "Lauren", "Amber", "Danielle", "Richard", "Kimberly", "Jeffrey", "Crystal", "Michelle", "Tiffany", "Jeremy", "Benjamin",
    "Mark", "Emily", "Aaron", "Charles", "Rebecca", "Jacob", "Stephen", "Patrick", "Sean", "Erin", "Jamie", "Kelly",
    "Samantha", "Nathan", "Sara", "Dustin", "Paul", "Angela", "Tyler", "Scott", "Andrea", "Gregory", "Erica", "Travis",
    "Lisa", "Kenneth", "Bryan", "Lindsey", "Jose", "Alexander", "Jesse", "Katie", "Lindsay", "Shannon", "Vanessa",
    "Courtney", "Christine", "Alicia", "Cody", "Allison", "Bradley", "Samuel", "George", "Alan", "Peter", "Anna",
];
