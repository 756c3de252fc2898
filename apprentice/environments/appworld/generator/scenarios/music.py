"""Spotify: what is in the library, liking, making and pruning playlists, whom to follow."""

from textwrap import dedent

from generator.draft import Change, Draft, Upkeep, complete, login, pages
from generator.scene import Scene, scenario


@scenario("train", 1)
def most_played_in_library(scene: Scene) -> Draft:
    """One genre, one maximum over the library."""
    genre = scene.choose(["rock", "jazz", "folk"])
    songs = [entry.song for entry in scene.account("spotify").user_library_songs if entry.song.genre == genre]
    best = max(songs, key=lambda song: song.play_count)
    best.play_count += 500  # clear of any tie
    best.save()
    return Draft(
        instruction=f"What is the title of the most-played {genre} song in my Spotify song library?",
        answer=best.title,
        public={"genre": genre},
        steps=[
            login("spotify"),
            pages("library", "spotify.show_song_library"),
            dedent(f"""
            songs = [apis.spotify.show_song(song_id=entry["song_id"]) for entry in library]
            matches = [song for song in songs if song["genre"] == "{genre}"]
            best = max(matches, key=lambda song: song["play_count"])
            print(len(matches), best["title"], best["play_count"])
            """),
            complete('best["title"]'),
        ],
    )


@scenario("train", 2)
def like_artist_in_library(scene: Scene) -> Draft:
    """Likes by one artist, leaving out what is liked already."""
    user = scene.account("spotify")
    liked = {entry.song_id for entry in user.song_likes}
    by_artist: dict[int, list[int]] = {}
    for entry in user.user_library_songs:
        if entry.song_id not in liked:
            by_artist.setdefault(entry.song.artist_ids[0], []).append(entry.song_id)
    artist_id = sorted(by_artist, key=lambda number: (-len(by_artist[number]), number))[scene.variant]
    artist = scene.models.spotify.Artist.by_id(artist_id).name
    return Draft(
        instruction=f"Go through my Spotify song library and like every song by {artist} that I haven't liked so far.",
        public={"artist": artist},
        changes=[Change("spotify.SongLike", added=[{"user_id": user.id, "song_id": number} for number in by_artist[artist_id]])],
        upkeep=[Upkeep("spotify.Song", ("like_count",))],
        steps=[
            login("spotify"),
            pages("library", "spotify.show_song_library"),
            pages("liked", "spotify.show_liked_songs"),
            dedent(f"""
            liked_ids = [song["song_id"] for song in liked]
            to_like = [song for song in library if song["artists"][0]["name"] == "{artist}" and song["song_id"] not in liked_ids]
            for song in to_like:
                apis.spotify.like_song(song_id=song["song_id"], access_token=spotify_token)
            print([song["title"] for song in to_like])
            """),
            complete(),
        ],
    )


@scenario("train", 2)
def playlist_from_downloads(scene: Scene) -> Draft:
    """A new playlist out of downloads of some years."""
    user = scene.account("spotify")
    title, year = scene.choose([("Offline Classics", 2018), ("Old Favourites", 2017), ("Before The Rush", 2019)])
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
    """Unfollows by genre."""
    user = scene.account("spotify")
    following = scene.models.spotify.UserArtistFollowing.find_all(user_id=user.id)
    genres = sorted({entry.artist.genre for entry in following}, key=lambda genre: (-sum(entry.artist.genre == genre for entry in following), genre))
    genre = scene.choose(genres)
    gone = [entry.id for entry in following if entry.artist.genre == genre]
    return Draft(
        instruction=f"I am done with {genre}. Please unfollow all the {genre} artists that I follow on Spotify.",
        public={"genre": genre},
        changes=[Change("spotify.UserArtistFollowing", removed=gone)],
        steps=[
            login("spotify"),
            pages("artists", "spotify.show_following_artists"),
            dedent(f"""
            unwanted = [artist for artist in artists if artist["genre"] == "{genre}"]
            for artist in unwanted:
                apis.spotify.unfollow_artist(artist_id=artist["artist_id"], access_token=spotify_token)
            print([artist["name"] for artist in unwanted])
            """),
            complete(),
        ],
    )


@scenario("test_normal", 2)
def prune_playlists(scene: Scene) -> Draft:
    """Takes low-rated songs out of all own playlists."""
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
