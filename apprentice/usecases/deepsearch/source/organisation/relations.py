"""The relations that a fictional organisation records for each kind of entity, with templates for text and
questions."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Relation:
    """One relation of one kind of entity. In templates, {x} is the name of the entity and {v} its value."""

    subject: str
    """Kind of the entity."""
    name: str
    object: str
    """Kind of the value: a kind of entity, or a plain value (year, city, number, words)."""
    keyword: str
    """Search keyword for the relation, used after the name of the entity."""
    questions: tuple[str, ...]
    """Templates that ask for the value."""
    sentences: tuple[str, ...]
    """Templates that state the value."""
    phrases: tuple[str, ...] = ()
    """Templates that refer to the value in a longer question; for values that are entities."""
    unit: str = ""
    """Unit of a number; answers are accepted with and without it."""


RELATIONS = (
    Relation(
        "person",
        "role",
        "words",
        "job",
        ("What is the job of {x}?", "What does {x} work as?", "Which role does {x} have?", "What is the profession of {x}?"),
        ("Works as {v}.", "Job: {v}.", "Current role: {v}."),
    ),
    Relation(
        "person",
        "team",
        "team",
        "team",
        ("Which team does {x} work in?", "What team is {x} on?", "Which team is {x} a member of?", "To which team does {x} belong?"),
        ("Member of the {v}.", "Belongs to the {v}.", "Works in the {v}."),
        ("the team of {x}", "the team {x} works in", "the team {x} belongs to"),
    ),
    Relation(
        "person",
        "hometown",
        "city",
        "born",
        ("Where was {x} born?", "In which city was {x} born?", "What is the birthplace of {x}?", "Which city does {x} come from?"),
        ("Born in {v}.", "Comes from {v}.", "Birthplace: {v}."),
    ),
    Relation(
        "person",
        "joined",
        "year",
        "joined",
        ("When did {x} join?", "In which year did {x} join the company?", "What year was {x} hired?", "Since when has {x} been employed?"),
        ("Joined in {v}.", "Hired in {v}.", "Employed since {v}."),
    ),
    Relation(
        "person",
        "mentor",
        "person",
        "mentor",
        ("Who mentors {x}?", "Who is the mentor of {x}?", "Which colleague is the mentor of {x}?", "By whom is {x} mentored?"),
        ("Mentored by {v}.", "Mentor: {v}.", "Has {v} as mentor."),
        ("the mentor of {x}", "the person who mentors {x}"),
    ),
    Relation(
        "team",
        "subject",
        "words",
        "works on",
        ("What does {x} work on?", "What is {x} responsible for?", "Which field does {x} cover?"),
        ("Works on {v}.", "Responsible for {v}.", "Field: {v}."),
    ),
    Relation(
        "team",
        "lead",
        "person",
        "lead",
        ("Who leads {x}?", "Who is the head of {x}?", "Who is the lead of {x}?", "By whom is {x} led?"),
        ("Led by {v}.", "Lead: {v}.", "Its head is {v}."),
        ("the lead of {x}", "the person who leads {x}", "the head of {x}"),
    ),
    Relation(
        "team",
        "office",
        "office",
        "office",
        ("Which office is {x} based at?", "Where does {x} sit?", "What is the home office of {x}?", "At which office does {x} work?"),
        ("Based at {v}.", "Home office: {v}.", "Sits at {v}."),
        ("the office of {x}", "the office where {x} is based", "the home office of {x}"),
    ),
    Relation(
        "team",
        "founded",
        "year",
        "founded",
        ("When was {x} founded?", "In which year was {x} set up?", "What year did {x} start?", "Since when has {x} existed?"),
        ("Founded in {v}.", "Set up in {v}.", "Exists since {v}."),
    ),
    Relation(
        "team",
        "members",
        "number",
        "members",
        ("How many members does {x} have?", "How many people work in {x}?", "What is the size of {x}?"),
        ("Has {v} members.", "Size: {v} members.", "Counts {v} members."),
        unit="members",
    ),
    Relation(
        "office",
        "city",
        "city",
        "city",
        ("In which city is {x}?", "Where is {x} located?", "Which city is {x} in?", "What city would you travel to for {x}?"),
        ("Located in {v}.", "Stands in {v}.", "City: {v}."),
    ),
    Relation(
        "office",
        "opened",
        "year",
        "opened",
        ("When did {x} open?", "In which year was {x} opened?", "What is the opening year of {x}?"),
        ("Opened in {v}.", "In use since {v}.", "Opening year: {v}."),
    ),
    Relation(
        "office",
        "floors",
        "number",
        "floors",
        ("How many floors does {x} have?", "How many storeys high is {x}?", "What is the number of floors of {x}?"),
        ("Has {v} floors.", "The building has {v} floors.", "Spread over {v} floors."),
        unit="floors",
    ),
    Relation(
        "office",
        "caretaker",
        "person",
        "caretaker",
        ("Who is the caretaker of {x}?", "Who looks after {x}?", "Which person is the caretaker of {x}?"),
        ("Caretaker: {v}.", "Looked after by {v}.", "Its caretaker is {v}."),
        ("the caretaker of {x}", "the person who looks after {x}"),
    ),
    Relation(
        "product",
        "team",
        "team",
        "team",
        ("Which team owns {x}?", "Which team develops {x}?", "What team is behind {x}?", "By which team is {x} made?"),
        ("Owned by the {v}.", "Developed by the {v}.", "Made by the {v}."),
        ("the team that owns {x}", "the team behind {x}", "the team that develops {x}"),
    ),
    Relation(
        "product",
        "manager",
        "person",
        "manager",
        ("Who is the product manager of {x}?", "Who manages {x}?", "Which person manages the product {x}?"),
        ("Managed by {v}.", "Product manager: {v}.", "Its manager is {v}."),
        ("the product manager of {x}", "the person who manages {x}"),
    ),
    Relation(
        "product",
        "launched",
        "year",
        "launched",
        ("When was {x} launched?", "In which year did {x} launch?", "What year did {x} come out?", "Since when is {x} on sale?"),
        ("Launched in {v}.", "On sale since {v}.", "Came out in {v}."),
    ),
    Relation(
        "product",
        "price",
        "number",
        "price",
        ("How much does {x} cost?", "What is the price of {x}?", "For how many euros is {x} sold?"),
        ("Costs {v} euros.", "Price: {v} euros.", "Sold for {v} euros."),
        unit="euros",
    ),
    Relation(
        "product",
        "replaced",
        "product",
        "replaced",
        ("Which product did {x} replace?", "What is the predecessor of {x}?", "Which product came before {x}?"),
        ("Replaced {v}.", "Successor of {v}.", "Its predecessor is {v}."),
        ("the product that {x} replaced", "the predecessor of {x}"),
    ),
    Relation(
        "policy",
        "team",
        "team",
        "team",
        ("Which team maintains {x}?", "Which team is in charge of {x}?", "What team keeps {x} up to date?"),
        ("Maintained by the {v}.", "In the charge of the {v}.", "Kept by the {v}."),
        ("the team that maintains {x}", "the team in charge of {x}"),
    ),
    Relation(
        "policy",
        "approver",
        "person",
        "approved",
        ("Who approved {x}?", "Who signed {x}?", "By whom was {x} approved?"),
        ("Approved by {v}.", "Signed by {v}.", "Approval: {v}."),
        ("the person who approved {x}", "the person who signed {x}"),
    ),
    Relation(
        "policy",
        "effective",
        "year",
        "in force since",
        ("Since when is {x} in force?", "When did {x} take effect?", "In which year did {x} come into force?"),
        ("In force since {v}.", "Took effect in {v}.", "Came into force in {v}."),
    ),
    Relation(
        "policy",
        "review",
        "number",
        "review months",
        ("How often is {x} reviewed?", "After how many months is {x} reviewed?", "What is the review interval of {x}?"),
        ("Reviewed every {v} months.", "Review interval: {v} months.", "Review due every {v} months."),
        unit="months",
    ),
    Relation(
        "event",
        "venue",
        "office",
        "venue",
        ("Where was {x} held?", "Which office was the venue of {x}?", "At which office did {x} take place?"),
        ("Held at {v}.", "Venue: {v}.", "Took place at {v}."),
        ("the venue of {x}", "the office where {x} was held"),
    ),
    Relation(
        "event",
        "host",
        "person",
        "host",
        ("Who hosted {x}?", "Who was the host of {x}?", "Which person hosted {x}?"),
        ("Hosted by {v}.", "Host: {v}.", "The host was {v}."),
        ("the host of {x}", "the person who hosted {x}"),
    ),
    Relation(
        "event",
        "year",
        "year",
        "year",
        ("When was {x}?", "In which year did {x} take place?", "What year was {x} held?"),
        ("Dated {v}.", "Year: {v}.", "It was the year {v}."),
    ),
    Relation(
        "event",
        "guests",
        "number",
        "guests",
        ("How many guests came to {x}?", "How many guests did {x} have?", "How many people attended {x}?"),
        ("Welcomed {v} guests.", "Guests: {v}.", "There were {v} guests."),
        unit="guests",
    ),
    Relation(
        "event",
        "product",
        "product",
        "product shown",
        ("Which product was shown at {x}?", "Which product was presented at {x}?", "What product did visitors see at {x}?"),
        ("Presented {v}.", "Product shown: {v}.", "Visitors saw {v}."),
        ("the product shown at {x}", "the product presented at {x}"),
    ),
)
OF_KIND = {kind: tuple(relation for relation in RELATIONS if relation.subject == kind) for kind in ("person", "team", "office", "product", "policy", "event")}

ALWAYS_RECORDED = {("person", "team"), ("person", "role"), ("team", "office"), ("team", "lead")}
"""The backbone of the graph, without which there would be few long chains."""

OPENINGS = {
    "person": ("{x} is an employee.", "{x} is on the staff.", "{x} works here."),
    "team": ("The {x} is a team.", "The {x} is one of the teams."),
    "office": ("{x} is an office.", "{x} is an office building."),
    "product": ("{x} is a product.", "{x} is one of the products."),
    "policy": ("The {x} is a company rule.", "The {x} binds all staff."),
    "event": ("The {x} was a company event.", "The {x} was an event for staff."),
}
ALIASES = ("Also called {a}.", "Known as {a}.", "Nickname: {a}.")
DISTRACTORS = {
    "person": ("Studied in {city}.", "Promoted in {year}.", "Shares a desk with {person}."),
    "team": ("Formerly led by {person}.", "Reorganised in {year}.", "Moved from {office}."),
    "office": ("Renovated in {year}.", "Twinned with an office in {city}.", "Designed by {person}."),
    "product": ("Redesigned in {year}.", "Tested by {person}.", "First drafted in {city}."),
    "policy": ("Drafted in {year}.", "Translated by {person}.", "Printed in {city}."),
    "event": ("Next planned for {year}.", "Photographed by {person}.", "Last time it was in {city}."),
}
"""Kind of entity -> templates of facts that no question asks for, of the same types as those that questions ask for."""
