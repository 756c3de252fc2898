"""Scenarios about Spotify: the library, likes, playlists, and followed artists."""

from textwrap import dedent

from generator.draft import Change, Draft, Upkeep, complete, login, pages
from generator.scene import Scene, scenario

SUPERLATIVES = {"most-played": (max, "play_count"), "least-played": (min, "play_count"), "longest": (max, "duration"), "shortest": (min, "duration")}


@scenario("train", 1)
def most_played_in_library(scene: Scene) -> Draft:
    """Find the extreme song of one genre in the library."""
    genre, superlative = scene.choose(
        [
            ("rock", "most-played"),
            ("jazz", "most-played"),
            ("folk", "most-played"),
            ("pop", "least-played"),
            ("classical", "longest"),
            ("EDM", "most-played"),
            ("jazz", "shortest"),
            ("folk", "least-played"),
            ("rock", "longest"),
        ]
    )
    pick, field = SUPERLATIVES[superlative]
    songs = [entry.song for entry in scene.account("spotify").user_library_songs if entry.song.genre == genre]
    best = pick(songs, key=lambda song: getattr(song, field))
    setattr(best, field, getattr(best, field) + 500 if pick is max else getattr(best, field) // 2)  # excludes ties
    best.save()
    return Draft(
        instruction=f"What is the title of the {superlative} {genre} song in my Spotify song library?",
        answer=best.title,
        public={"genre": genre, "superlative": superlative},
        steps=[
            login("spotify"),
            pages("library", "spotify.show_song_library"),
            dedent(f"""
            songs = [apis.spotify.show_song(song_id=entry["song_id"]) for entry in library]
            matches = [song for song in songs if song["genre"] == "{genre}"]
            best = {pick.__name__}(matches, key=lambda song: song["{field}"])
            print(len(matches), best["title"], best["{field}"])
            """),
            complete('best["title"]'),
        ],
    )


@scenario("train", 2)
def like_artist_in_library(scene: Scene) -> Draft:
    """Like the songs of one artist, some variants only those above a length, unless they are liked already."""
    user = scene.account("spotify")
    length = scene.choose([0, 0, 0, 180, 240, 150, 210, 165, 200])
    liked = {entry.song_id for entry in user.song_likes}
    by_artist: dict[int, list[int]] = {}
    for entry in user.user_library_songs:
        if entry.song_id not in liked and entry.song.duration > length:
            by_artist.setdefault(entry.song.artist_ids[0], []).append(entry.song_id)
    artist_id = scene.choose(sorted(by_artist, key=lambda number: (-len(by_artist[number]), number)))
    artist = scene.models.spotify.Artist.by_id(artist_id).name
    wish, condition = (f" and that is longer than {length} seconds", f' and song["duration"] > {length}') if length else ("", "")
    return Draft(
        instruction=f"Go through my Spotify song library and like every song by {artist} that I haven't liked so far{wish}.",
        public={"artist": artist, "length": length},
        changes=[Change("spotify.SongLike", added=[{"user_id": user.id, "song_id": number} for number in by_artist[artist_id]])],
        upkeep=[Upkeep("spotify.Song", ("like_count",))],
        steps=[
            login("spotify"),
            pages("library", "spotify.show_song_library"),
            pages("liked", "spotify.show_liked_songs"),
            dedent(f"""
            liked_ids = [song["song_id"] for song in liked]
            to_like = [song for song in library if song["artists"][0]["name"] == "{artist}" and song["song_id"] not in liked_ids{condition}]
            for song in to_like:
                apis.spotify.like_song(song_id=song["song_id"], access_token=spotify_token)
            print([song["title"] for song in to_like])
            """),
            complete(),
        ],
    )


@scenario("train", 2)
def playlist_from_downloads(scene: Scene) -> Draft:
    """Create a playlist from the downloads of some years."""
    user = scene.account("spotify")
    title, year = scene.choose(
        [
            ("Offline Classics", 2018),
            ("Old Favourites", 2017),
            ("Before The Rush", 2019),
            ("Airplane Mode", 2020),
            ("Dusty Gems", 2016),
            ("Cabin Songs", 2022),
            ("Songs Of My Twenties", 2021),
            ("Commute Without Signal", 2023),
            ("Time Machine", 2015),
        ]
    )
    songs = [entry.song for entry in scene.models.spotify.UserDownloadedSong.find_all(user_id=user.id)]
    chosen = [song.id for song in songs if song.release_date.year < year]
    return Draft(
        instruction=f'I need a new private Spotify playlist called "{title}". Put all songs into it that I have downloaded and that came out before {year}.',
        public={"title": title, "year": year},
        changes=[
            Change("spotify.Playlist", added=[{"user_id": user.id, "title": title, "is_public": False}]),
            Change("spotify.PlaylistSong", added=[{"playlist.user_id": user.id, "playlist.title": title, "song_id": number} for number in chosen]),
        ],
        steps=[
            login("spotify"),
            pages("downloads", "spotify.show_downloaded_songs"),
            dedent(f"""
            songs = [apis.spotify.show_song(song_id=entry["song_id"]) for entry in downloads]
            chosen = [song for song in songs if int(song["release_date"][:4]) < {year}]
            print([(song["title"], song["release_date"]) for song in chosen])
            """),
            dedent(f"""
            playlist_id = apis.spotify.create_playlist(title="{title}", access_token=spotify_token)["playlist_id"]
            for song in chosen:
                apis.spotify.add_song_to_playlist(playlist_id=playlist_id, song_id=song["song_id"], access_token=spotify_token)
            print(playlist_id, len(chosen))
            """),
            complete(),
        ],
    )


@scenario("train", 2)
def unfollow_genre(scene: Scene) -> Draft:
    """Unfollow the artists of a genre, in some variants with one exception."""
    app, user = scene.models.spotify, scene.account("spotify")
    following = app.UserArtistFollowing.find_all(user_id=user.id)
    genres = sorted({entry.artist.genre for entry in following}, key=lambda genre: (-sum(entry.artist.genre == genre for entry in following), genre))
    genre, kept = scene.choose(
        [
            *((one, None) for one in genres[:3]),
            ("rock", "Velvet Parade"),
            ("classical", "Juno Hale"),
            ("pop", "Clara Winter"),
            ("folk", "Amber Static"),
            ("jazz", "Isla Marr"),
            ("EDM", "The Quiet Machines"),
        ]
    )
    for artist in app.Artist.find_all(genre=genre) if kept else ():
        if not app.UserArtistFollowing.exists(user_id=user.id, artist_id=artist.id):
            app.UserArtistFollowing.create_save(user_id=user.id, artist_id=artist.id, created_at=scene.past(5, 600))
    gone = [entry.id for entry in app.UserArtistFollowing.find_all(user_id=user.id) if entry.artist.genre == genre and entry.artist.name != kept]
    wish, condition = (f", except {kept}", f' and artist["name"] != "{kept}"') if kept else ("", "")
    return Draft(
        instruction=f"I am done with {genre}. Please unfollow all the {genre} artists that I follow on Spotify{wish}.",
        public={"genre": genre, "kept": kept},
        changes=[Change("spotify.UserArtistFollowing", removed=gone)],
        steps=[
            login("spotify"),
            pages("artists", "spotify.show_following_artists"),
            dedent(f"""
            unwanted = [artist for artist in artists if artist["genre"] == "{genre}"{condition}]
            for artist in unwanted:
                apis.spotify.unfollow_artist(artist_id=artist["artist_id"], access_token=spotify_token)
            print([artist["name"] for artist in unwanted])
            """),
            complete(),
        ],
    )


@scenario("test_normal", 2)
def prune_playlists(scene: Scene) -> Draft:
    """Remove low-rated songs from all own playlists."""
    user = scene.account("spotify")
    limit = scene.choose([2.5, 2.2, 3.0])
    entries = [entry for playlist in scene.models.spotify.Playlist.find_all(user_id=user.id) for entry in playlist.playlist_songs]
    gone = [entry.id for entry in entries if entry.song.rating < limit]
    return Draft(
        instruction=f"My Spotify playlists have become a mess: throw out each song that is rated lower than {limit}, from every playlist that I own.",
        public={"limit": limit},
        changes=[Change("spotify.PlaylistSong", removed=gone)],
        steps=[
            login("spotify"),
            pages("playlists", "spotify.show_playlist_library"),
            dedent(f"""
            removed = []
            for playlist in playlists:
                for song_id in playlist["song_ids"]:
                    song = apis.spotify.show_song(song_id=song_id)
                    if song["rating"] < {limit}:
                        apis.spotify.remove_song_from_playlist(playlist_id=playlist["playlist_id"], song_id=song_id, access_token=spotify_token)
                        removed.append((playlist["title"], song["title"], song["rating"]))
            print(removed)
            """),
            complete(),
        ],
    )
