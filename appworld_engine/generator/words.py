"""The vocabulary of generated data: invented names of songs, products, projects, and so on."""

GENRES = ["rock", "jazz", "pop", "EDM", "classical", "folk"]
ARTISTS = [
    "Luna Vale", "The Ironwoods", "Mira Kade", "Oskar Flint", "Paper Tides", "Sable & Finch", "Velvet Parade", "Northbound 9",
    "Clara Winter", "The Quiet Machines", "Juno Hale", "Amber Static", "Low Orbit", "Isla Marr", "Glass Meridian",
]  # fmt: skip
TITLE_HEADS = "Silent Golden Broken Distant Velvet Electric Hidden Crimson Paper Winter Neon Hollow Amber Drifting Lonely Marble Northern Restless".split()
TITLE_TAILS = (
    "River Horizon Mirror Engine Garden Letter Satellite Harbor Season Window Parade Anthem Lantern Meadow Signal Staircase Tide Avenue Orchard Compass".split()
)
PLAYLISTS = [
    "Morning Run", "Slow Sunday", "Kitchen Radio", "Deep Focus", "Road Trip Mix", "Late Night Drive", "Rainy Day", "Gym Hour",
    "Dinner Party", "Train Rides", "Garden Work", "Throwbacks",
]  # fmt: skip
SELLERS = ["Oakline Goods", "Pinecrest Supply", "Brightwell", "Harbor Home", "Kettle & Co", "Summit Outfitters", "Tidewater Tools", "Maple Street"]
PRODUCTS = {
    "backpack": ["Trailhead 20", "Citywalk Slim", "Granite Hauler", "Fold & Go", "Canvas Scout", "Nomad 35"],
    "desk lamp": ["Halo Arc", "Brass Heron", "Pivot Mini", "Study Glow", "Paperlight", "Northlight Duo"],
    "headphones": ["Quietwave 3", "Studio Drum", "Airloop", "Bassline Pro", "Murmur Kids", "Roamer Over-Ear"],
    "kettle": ["Swift Boil", "Gooseneck One", "Copper Robin", "Steamline", "Travel Pot", "Teaspring"],
    "keyboard": ["Typist 87", "Lowkey Slim", "Clatter Classic", "Numpad Plus", "Tandem Split", "Pebble Mini"],
    "yoga mat": ["Ground 5mm", "Lotus Roll", "Grip Studio", "Travel Fold", "Cork Natural", "Cloud Thick"],
    "water bottle": ["Steel Canteen", "Sip Glass", "Summit Flask", "Kids Spout", "Carbon Cap", "Daily Liter"],
    "board game": ["Harbor Lords", "Tiny Railways", "Moss & Stone", "Signal Fire", "Cardinal Points", "Market Day"],
}
DESCRIPTIONS = ["Lunch", "Taxi", "Groceries", "Movie night", "Gas", "Coffee", "Concert tickets", "Electricity", "Internet", "Pizza", "Birthday gift", "Parking"]
CHATTER = [
    "Did you water the plants?", "Running ten minutes late.", "The new bakery on the corner is great.", "Can you send me the address again?",
    "I left your book on the table.", "Let's talk about it on Monday.", "The bus was full again.", "Have you seen my charger?",
    "I finished the puzzle last night.", "Thanks for the soup recipe.", "The match starts at eight.", "We need more printer paper.",
    "My train is delayed.", "The garden looks lovely this week.", "Please call me when you can.", "I found a nice trail by the lake.",
]  # fmt: skip
ALARM_LABELS = ["Wake up", "Gym", "Take vitamins", "Call home", "Water plants", "Stretch", "Standup", "Laundry", "Language class", "Feed the cat", "Read"]
FILE_STEMS = ["agenda", "budget", "draft", "guide", "list", "manual", "minutes", "outline", "plan", "recipe", "report", "sketch"]
NOTE_TITLES = [
    "Book club thoughts", "Bike repair", "Birthday ideas", "Garden plan", "Interview questions", "Learning goals", "Movie quotes", "Paint colors",
    "Podcast list", "Project brainstorm", "Recipe tweaks", "Restaurant tips", "Speech outline", "Tent checklist", "Wifi setup", "Workout log",
    "Apartment measurements", "Museum opening hours",
]  # fmt: skip
PROJECTS = ["Home renovation", "Spring cleaning", "Newsletter", "Side business", "Wedding", "Marathon training", "Conference talk", "Garden shed"]
TODO_TITLES = [
    "Order samples", "Book the venue", "Draft the outline", "Call the plumber", "Compare prices", "Update the spreadsheet", "Write the intro", "Buy paint",
    "Pick a date", "Email the printer", "Check the wiring", "Sort old boxes", "Plan the route", "Renew the permit", "Return the ladder", "Choose a font",
]  # fmt: skip
MAIL_SUBJECTS = [
    "Weekend plans", "Photos from last week", "Quick question", "Dentist appointment", "New address", "Recipe you asked for", "Team lunch", "Office parking",
    "Book recommendation", "Spare keys", "Holiday dates", "Feedback wanted",
]  # fmt: skip
