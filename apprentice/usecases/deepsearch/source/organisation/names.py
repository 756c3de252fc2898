"""The vocabulary for names in a fictional organisation. No two kinds of entities share a word."""

FIRST_NAMES = tuple(
    "Ada Alma Amir Anton Arlo Bela Bruno Carla Cedric Clara Dario Dina Edgar Elif Elena Emil Erik Farah Felix Greta Hana Hugo Ines Ivan "
    "Jana Jonas Karim Kira Lars Leila Lena Luca Magda Marco Mina Nadia Nils Nora Olga Oscar Paula Petra Rafael Rosa Sami Sofia Tomas Vera".split()
)
LAST_NAMES = tuple(
    "Abbott Acker Almeida Andrade Bauer Becker Berg Blom Brandt Caruso Castell Costa Dahl Danner Duarte Eklund Engel Farkas Ferrer Fischer "
    "Fontana Garnier Gruber Haas Hagen Hartley Holm Horvat Ibsen Jansen Joubert Kaplan Keller Koval Kramer Lang Larsen Lindqvist Lorenz Maier "
    "Marek Medina Moreau Nagy Navarro Nolan Novak Okafor Olsen Orlov Palmer Pereira Pires Quist Ramos Richter Rossi Rowan Sander Santos "
    "Schmidt Silva Sorensen Steiner Szabo Tanner Toth Varga Vogel Weiss".split()
)
NICKNAMES = tuple(
    "Ace Badger Bear Bingo Biscuit Bobbin Boots Buzz Chip Coco Cricket Dash Dizzy Domino Dot Dusty Echo Fizz Flash Fuzz Gadget Gizmo Goose "
    "Hoops Inky Jazz Jinx Kit Lefty Lucky Mango Marble Mouse Muffin Noodle Nugget Otter Patch Peanut Pepper Pickle Pip Pixel Radar Rocket "
    "Rusty Scout Shadow Skip Smokey Sparky Specs Sprout Squid Tango Tiger Tinker Turbo Twig Waffle Whiz Ziggy".split()
)
TEAM_WORDS = tuple(
    "Albatross Bison Cobra Condor Coyote Dolphin Falcon Ferret Gazelle Gibbon Heron Hornet Ibex Jackal Kestrel Lemur Lynx Magpie Mantis "
    "Marlin Mongoose Narwhal Ocelot Osprey Panther Pelican Puffin Raven Salmon Scorpion Stork Tapir Toucan Viper Walrus Wombat".split()
)
TEAM_NICKNAMES = tuple(
    "Night Shift;Round Table;Back Bench;Ground Floor;Quiet Corner;Paper Planes;Early Birds;Tool Shed;Coffee Club;Blue Notes;Fast Lane;Loose "
    "Ends;Red Pens;Long Table;Spare Keys;Open Window;Last Mile;Green Lights".split(";")
)
OFFICE_WORDS = tuple(
    "Abbey Anchor Bridge Castle Chapel Cloister Fountain Garden Granary Harbour Lantern Lighthouse Market Mill Orchard Palace Quarry "
    "Railway Station Theatre Tower Vineyard Well Windmill".split()
)
OFFICE_ENDINGS = ("House", "Court", "Yard", "Wharf")
CITIES = tuple(
    "Athens Bergen Bilbao Bologna Bremen Bruges Cork Dresden Dublin Geneva Genoa Ghent Graz Hamburg Helsinki Krakow Leipzig Lisbon Lyon Madrid "
    "Malmo Milan Munich Nantes Naples Oslo Ostend Palermo Porto Prague Riga Rotterdam Salzburg Seville Tallinn Trieste Turin Utrecht Valencia "
    "Vienna Vilnius Warsaw Zagreb Zurich".split()
)
ROLES = (
    "accountant;archivist;auditor;buyer;chemist;copywriter;data analyst;designer;editor;electrician;engineer;illustrator;interpreter;lawyer;"
    "librarian;machinist;mechanic;nurse;payroll clerk;photographer;planner;programmer;receptionist;recruiter;researcher;statistician;technician;translator;"
    "treasurer;welder"
).split(";")
SUBJECTS = (
    "battery recycling;billing;cargo routing;catering;chip testing;cloud storage;customer support;data quality;energy audits;fleet repair;fraud "
    "checks;glass coating;grid planning;hiring;image search;insurance claims;inventory;lab safety;legal research;map making;market research;noise "
    "control;packaging;payroll;pump design;quality control;rail signals;sensor design;solar panels;speech software;staff training;tax filing;ticket "
    "sales;water filters;web design;wind turbines"
).split(";")
PRODUCT_HEADS = ("Bel", "Cor", "Dra", "Fen", "Gal", "Hel", "Jor", "Kal", "Lum", "Mor", "Nov", "Orb", "Pel", "Quil", "Sol", "Tor", "Val", "Zen")
PRODUCT_TAILS = ("adon", "antis", "axo", "enta", "eron", "ibra", "ilium", "ion", "ista", "odex", "onix", "ura")
CODE_NAMES = tuple(
    "Agate Basalt Beryl Cobalt Coral Dolomite Emery Feldspar Flint Galena Garnet Gneiss Granite Gypsum Halite Jasper Lignite Limestone Mica "
    "Marl Obsidian Olivine Onyx Opal Peridot Pumice Pyrite Quartz Rutile Sandstone Schist Shale Slate Spinel Talc Topaz Tuff Zircon".split()
)
POLICY_TOPICS = (
    "Absence;Alcohol;Archive;Badge;Bicycle;Bonus;Clothing;Complaints;Confidentiality;Donation;Drone;Email;Expenses;Fire Drill;First Aid;Gifts;Guest;"
    "Holiday;Home Working;Internship;Laptop;Mobile Phone;Newsletter;Overtime;Parental Leave;Parking;Password;Pension;Pets;Photography;Printing;"
    "Procurement;Recycling;Relocation;Sabbatical;Security Camera;Sick Leave;Smoking;Social Media;Software Licence;Sponsorship;Travel;Uniform;Vaccination;"
    "Volunteering;Whistleblower"
).split(";")
EVENT_WORDS = ("Amber", "Azure", "Bronze", "Crimson", "Emerald", "Golden", "Indigo", "Ivory", "Maroon", "Scarlet", "Silver", "Turquoise", "Violet")
EVENT_ENDINGS = ("Fair", "Forum", "Gala", "Retreat", "Summit", "Workshop")
COMPANIES = ("Ashdown", "Brightwater", "Calder", "Dunmore", "Elmhurst", "Farrow", "Greystone", "Hollin")
CLUBS = ("chess", "choir", "climbing", "cycling", "gardening", "hiking", "rowing", "running", "sailing", "tennis")
